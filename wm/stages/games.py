"""Units of evaluation: some candidates in some episodes, of the real game or of the dream."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm.agent import Agent
from wm.config import Config
from wm.controller import Controller
from wm.dream import Dream, Rules, Starts, World
from wm.envs import load
from wm.memory import MDNRNN
from wm.rollout import Fleet, Played, play
from wm.vision import Vision


@dataclass(frozen=True)
class Games:
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
class Dreams:
    """Candidates to dream the same episodes, all in one batch."""

    name: str
    thetas: np.ndarray  # (P, N)
    seed: int
    episodes: int
    first: int = 0  # the number of its first candidate in the population

    def __str__(self) -> str:
        return f"{self.name} (seed {self.seed})"


@dataclass(frozen=True)
class Evaluating:
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

    def build(self) -> Callable[[Games | Dreams], Any]:
        play, dream = self._player(), self._dreamer() if self.starts else None

        def do(unit: Games | Dreams) -> Any:
            if isinstance(unit, Games):
                return play(unit)
            assert dream is not None, "no first frames to dream from"
            return dream.rollout(unit.thetas, unit.seed, unit.episodes)

        return do

    def _player(self) -> Callable[[Games], list[Played]]:
        game, controller = load(self.config.game), controller_of(self.config)
        fleet = Fleet(lambda: game.make(exact=self.exact))
        latent = self.config.controller.latent

        def do(unit: Games) -> list[Played]:
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


def rules_of(config: Config) -> Rules:
    """How dreams are played in a run with this config."""
    section, game = config.evolve, load(config.game)
    return Rules(
        steps=section.dream_steps,
        tau=(section.tau, section.tau_high) if section.tau_high else section.tau,
        done=section.dream_done,
        reward="head" if config.memory.reward else "survival",
        dropout=section.dream_dropout,
        done_weight=config.memory.done_weight,
        lap=game.lap if section.dream_lap else 0.0,
        step_price=game.step_price,
    )


def controller_of(config: Config) -> Controller:
    """The shape of C in a run with this config."""
    section = config.controller
    return Controller(
        inputs=section.inputs,
        z=config.vision.z,
        hidden=config.memory.hidden,
        actions=load(config.game).actions,
        layer=section.layer,
        bias=section.bias,
    )
