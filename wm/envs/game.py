"""What the method needs to know of a game."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor  # importing torch takes seconds, which registering an environment should not

FRAME = (64, 64, 3)  # height, width, RGB: V's input in every game


class Game(ABC):
    """A game as V, M and C see it. Games are light and can be pickled: they travel to workers."""

    name: str  # as in the config: "car-racing"
    version: str  # changes whenever the same seed and actions give other frames or rewards
    actions: int  # A, numbers in one action
    pedals: bool = False  # whether `squash` also takes two outputs: steering, and one pedal for gas and brake
    max_steps: int  # the game's own time limit
    own_limit: bool = True  # False: the game has none, so scores of episodes cut at max_steps are not whole
    lap: float = 0.0  # an episode ends when its rewards, without the price of each step, add up to this; 0: never
    step_price: float = 0.0  # subtracted from each step's reward
    random_steps: int = 0  # typical length of a random policy's episodes, for estimates; 0 is max_steps
    random_rewards: int = 0  # typical step of its last reward, after which patience ends an episode; 0 is unknown
    explorations: tuple[str, ...]  # the random policies that `explore` knows, the default first
    mirror: tuple[float, ...] = ()  # factors of an action's numbers in a mirror image, if the game is mirror-symmetric

    @abstractmethod
    def make(self, exact: bool = False) -> gymnasium.Env:
        """A new environment; `exact` is the unmodified game, on which scores are measured."""

    @abstractmethod
    def squash(self, raw: Tensor) -> Tensor:
        """C's unbounded output (..., O) to actions, in the real game and in the dream. (..., A)"""

    @abstractmethod
    def explore(self, kind: str, steps: int, rng: np.random.Generator) -> np.ndarray:
        """The actions of one random episode, drawn in advance. (T, A) float32"""

    def idle(self) -> np.ndarray:
        """The action that does nothing. (A,) float32"""
        return np.zeros(self.actions, np.float32)

    def measure(self, frames: Tensor, decoded: Tensor) -> dict[str, float]:
        """Metrics of V's reconstructions that are specific to this game."""
        return {}

    def visited(self, seed: int, actions: np.ndarray) -> dict[str, np.ndarray]:
        """What an episode has visited, found by replaying it without rendering. Actions are (T, A)."""
        return {}

    def hardness(self, seed: int) -> float:
        """How hard an episode is for any agent, if the game can tell in advance."""
        return 0.0

    def state(self, env: Any) -> dict[str, float]:
        """Quantities of the simulation that a frame shows, and that z should therefore encode."""
        return {}
