"""The games, one file each, behind one small contract.

An environment is a `gymnasium.Env` whose observation is a 64x64x3 uint8 frame and whose action is
a float32 vector; `render` gives the picture that people see, as large as the game draws it. A `Game`
is what the method has to know about it beyond that.

Importing this registers the fast CarRacing with gymnasium, as `wm/CarRacing-v3`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from wm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor  # takes a second to import

FRAME = (64, 64, 3)  # height, width, RGB: what V sees, whatever the game

GAMES = {"car-racing": "wm.envs.carracing:CarRacing", "doom": "wm.envs.doom:Doom"}

gymnasium.register(
    id="wm/CarRacing-v3",
    entry_point="wm.envs.carracing_fast:CarRacing",
    max_episode_steps=1000,
    reward_threshold=900,
)


class Game(ABC):
    """A game as V, M and C see it."""

    name: str  # as in the config: "car-racing"
    version: str  # changes whenever the same seed and actions give other frames or rewards
    actions: int  # A, numbers in one action
    max_steps: int  # the game's own time limit
    lap: float = 0.0  # an episode ends when its rewards, the price of each step aside, add up to this; 0: it doesn't
    step_price: float = 0.0  # taken off each step's reward
    random_steps: int = 0  # how long a random policy's episodes last, for plans; 0 is to the limit
    explorations: tuple[str, ...]  # the kinds of random policy that `explore` knows, the default first
    mirror: tuple[float, ...] = ()  # factors of an action's numbers as in a mirror, if there the game is the same

    @abstractmethod
    def make(self, exact: bool = False) -> gymnasium.Env:
        """A new environment; `exact` wraps the unmodified game, on which scores are taken."""

    @abstractmethod
    def squash(self, raw: Tensor) -> Tensor:
        """C's unbounded output to actions, in the real game and in the dream. (..., A)"""

    @abstractmethod
    def explore(self, kind: str, steps: int, rng: np.random.Generator) -> np.ndarray:
        """The actions of one random episode, fixed beforehand. (T, A) float32"""

    def measure(self, frames: Tensor, decoded: Tensor) -> dict[str, float]:
        """How well V keeps what matters in this game: its own measures, if it has any."""
        return {}

    def visited(self, seed: int, actions: np.ndarray) -> dict[str, np.ndarray]:
        """What an episode got to see, played again without a picture, if the game can tell. (T, A) to arrays."""
        return {}

    def hardness(self, seed: int) -> float:
        """How hard an episode is, whoever plays it, if the game can tell beforehand."""
        return 0.0

    def state(self, env: Any) -> dict[str, float]:
        """What one of its environments knows and a frame shows, if anything: V's z should tell it."""
        return {}


def load(name: str) -> Game:
    """The game of that name; gym:ID is an environment of gymnasium."""
    if name.startswith("gym:"):
        from wm.envs.anygym import any_game

        return any_game(name)
    if name not in GAMES:
        raise UserError(f"no game {name!r}: say --game {' or '.join(GAMES)}, or gym:ID for an environment of gymnasium")
    module, attribute = GAMES[name].split(":")
    return getattr(import_module(module), attribute)()
