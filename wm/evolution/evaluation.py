"""Evaluation of candidates. A unit of work is a batch of episodes of the real game, or some candidates in dreams."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm.dream.population import Dream
from wm.dream.rules import Rules
from wm.dream.starts import Starts
from wm.dream.world import World
from wm.envs import Game
from wm.envs.rollout import EnvironmentCache, EpisodeResult, play
from wm.models.agent import Models
from wm.models.device import prepare
from wm.models.precision import dtype_of


@dataclass(frozen=True)
class GameUnit:
    """Episodes of the real game to play in a batch, each with one of the candidates."""

    name: str
    thetas: np.ndarray  # (P, N)
    owner: tuple[int, ...]  # (E,), the candidate that plays each episode
    seeds: tuple[int, ...]  # (E,), of the game
    steps: int
    patience: int  # 0 plays whole episodes
    noise: int  # seed of samples of z
    first: int = 0  # index of its first episode among those of all units

    def __str__(self) -> str:
        return f"{self.name} (episode seeds {list(self.seeds)})"


@dataclass(frozen=True)
class DreamUnit:
    """Candidates that dream the same episodes in one batch."""

    name: str
    thetas: np.ndarray  # (P, N)
    seed: int
    episodes: int
    first: int = 0  # index of its first candidate in the population

    def __str__(self) -> str:
        return f"{self.name} (seed {self.seed})"


@dataclass(frozen=True)
class EvaluateWork:
    """Play or dream with these models. `exact` plays the unmodified game instead of the one with fast rendering."""

    game: Game
    models: Models
    threads: int
    rules: Rules | None = None  # of dreams
    starts: Starts | None = None
    exact: bool = False
    device: str = "cpu"  # of dreams; the real game runs on CPUs

    def build(self) -> Callable[[GameUnit | DreamUnit], Any]:
        play, dream = self._player(), self._dream() if self.starts else None

        def do(unit: GameUnit | DreamUnit) -> Any:
            if isinstance(unit, GameUnit):
                return play(unit)
            assert dream is not None, "no starts for dreams"
            return dream.rollout(unit.thetas, unit.seed, unit.episodes)

        return do

    def _player(self) -> Callable[[GameUnit], list[EpisodeResult]]:
        environments = EnvironmentCache(lambda: self.game.make(exact=self.exact))

        def do(unit: GameUnit) -> list[EpisodeResult]:
            agent = self.models.agent(unit.thetas, unit.owner, self.game.squash, seed=unit.noise)
            return play(environments.of(len(unit.seeds)), unit.seeds, agent, unit.steps, patience=unit.patience)

        return do

    def _dream(self) -> Dream:
        assert self.models.memory is not None, "no M to dream with"
        assert self.rules is not None
        assert self.starts is not None
        prepare(self.device)
        dtype = dtype_of(self.models.precision, self.device)
        world = World(self.models.memory, self.starts, self.rules, self.game.squash, device=self.device, dtype=dtype)
        return Dream(world, self.models.controller)
