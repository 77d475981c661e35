"""Units of evaluation: some candidates in some episodes, of the real game or of the dream."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm.config.schema import Config
from wm.dream.population import Dream
from wm.dream.rules import rules_of
from wm.dream.starts import Starts
from wm.dream.world import World
from wm.envs import load
from wm.envs.rollout import EnvironmentCache, Played, play
from wm.models.agent import Agent
from wm.models.build import controller_of
from wm.models.memory import MDNRNN
from wm.models.vision import Vision


@dataclass(frozen=True)
class GameUnit:
    """Episodes to play side by side, each by one of the candidates."""

    name: str
    thetas: np.ndarray  # (P, N)
    owner: tuple[int, ...]  # (E,), which candidate plays which episode
    seeds: tuple[int, ...]  # (E,), of the game
    steps: int
    patience: int  # 0 plays whole episodes
    noise: int  # seed of what is drawn for z
    first: int = 0  # the number of its first episode among all that belong together

    def __str__(self) -> str:
        return f"{self.name} (episodes' seeds {list(self.seeds)})"


@dataclass(frozen=True)
class DreamUnit:
    """Candidates to dream the same episodes, all in one batch."""

    name: str
    thetas: np.ndarray  # (P, N)
    seed: int
    episodes: int
    first: int = 0  # the number of its first candidate in the population

    def __str__(self) -> str:
        return f"{self.name} (seed {self.seed})"


@dataclass(frozen=True)
class EvaluateWork:
    """Let candidates for C play with this V and M: on the fast drawing or in the unmodified game, or in the dream."""

    config: Config
    vision: Vision
    memory: MDNRNN | None
    starts: Starts | None = None
    exact: bool = False
    device: str = "cpu"  # of the dream; games are played on CPUs

    @property
    def threads(self) -> int:
        return self.config.threads

    def build(self) -> Callable[[GameUnit | DreamUnit], Any]:
        play, dream = self._player(), self._dreamer() if self.starts else None

        def do(unit: GameUnit | DreamUnit) -> Any:
            if isinstance(unit, GameUnit):
                return play(unit)
            assert dream is not None, "no first frames to dream from"
            return dream.rollout(unit.thetas, unit.seed, unit.episodes)

        return do

    def _player(self) -> Callable[[GameUnit], list[Played]]:
        game, controller = load(self.config.game), controller_of(self.config)
        fleet = EnvironmentCache(lambda: game.make(exact=self.exact))
        latent = self.config.controller.latent

        def do(unit: GameUnit) -> list[Played]:
            agent = Agent(
                self.vision,
                self.memory,
                controller,
                unit.thetas,
                unit.owner,
                game.squash,
                latent=latent,
                seed=unit.noise,
            )
            return play(fleet.of(len(unit.seeds)), unit.seeds, agent, unit.steps, patience=unit.patience)

        return do

    def _dreamer(self) -> Dream:
        assert self.memory is not None, "no M to dream with"
        assert self.starts is not None
        rules = rules_of(self.config)
        squash = load(self.config.game).squash
        world = World(self.memory, self.starts, rules, squash, device=self.device)
        return Dream(world, controller_of(self.config))
