"""A trained agent, from a run or a file, ready to act in the game and to dream."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from wm.agents.artifacts import load_mean, load_memory, load_models, load_theta, load_vision, mean_key
from wm.config.schema import Config
from wm.dream.rules import rules_of
from wm.dream.starts import Starts, first_frames
from wm.dream.world import World
from wm.envs import Game, load
from wm.errors import UserError
from wm.evolution.validations import validated
from wm.models.agent import Agent, Models
from wm.models.build import models_of
from wm.models.controller import Controller
from wm.models.memory import MDNRNN
from wm.models.vision import Vision
from wm.runs.manifest import Manifest
from wm.runs.run import Run
from wm.runs.status import StageStatus, stage_statuses


@dataclass(frozen=True)
class Trained:
    config: Config
    models: Models
    theta: np.ndarray  # (N,)
    starts: Starts | None  # first frames, for whole dreams
    card: dict[str, Any]
    origin: str  # "evolve" for a run, "agent" for an agent file
    digest: str  # of its evolve stage or of the file
    decodes: bool = True  # whether V's decoder is included

    @cached_property
    def game(self) -> Game:
        return load(self.config.game)

    @property
    def vision(self) -> Vision:
        return self.models.vision

    @property
    def memory(self) -> MDNRNN | None:
        return self.models.memory

    @property
    def controller(self) -> Controller:
        return self.models.controller

    def agent(self, episodes: int = 1, seed: int = 0) -> Agent:
        """A policy for `wm.envs.rollout.play` that plays this many episodes in a batch."""
        return self.models.agent(self.theta, [0] * episodes, self.game.squash, seed=seed)

    def world(self, **changes: Any) -> World:
        """The agent's dream, as long as the game; `changes` are fields of `wm.dream.rules.Rules`, such as tau."""
        if self.memory is None or self.starts is None:
            raise UserError("this agent has no M, so it can't dream")
        rules = dataclasses.replace(rules_of(self.config, self.game), **{"steps": self.game.max_steps} | changes)
        return World(self.memory, self.starts, rules, self.game.squash)


def of_run(run: Run) -> Trained:
    """The result of a run's evolution."""
    models, _ = load_models(run)
    made = run.stage("evolve").manifest()
    if made is None:
        raise run.missing("evolve")
    starts = first_frames(run.need("latents")) if models.memory else None
    decodes = has_decoder(run.need("vision"))
    return Trained(run.config, models, load_theta(made), starts, {}, "evolve", made.digest, decodes)


def best_so_far(run: Run) -> Trained:
    """The furthest V and M, and the best-validated C, even if the evolution is not complete.

    M is included even if C doesn't need it, for pictures and dreams.
    """
    config, stages = run.config, stage_statuses(run)
    manifest = stages["vision"].need(run)
    vision, memory, starts = load_vision(manifest), None, None
    if stages["memory"].manifest is not None or config.controller.inputs != "z":
        memory = load_memory(stages["memory"].need(run), vision.z)
    if (latents := stages["latents"].manifest) is not None:
        starts = first_frames(latents)
    theta, digest = _best_theta(run, stages["evolve"])
    return Trained(
        config, models_of(config, vision, memory), theta, starts, {}, "evolve", digest, has_decoder(manifest)
    )


def _best_theta(run: Run, evolve: StageStatus) -> tuple[np.ndarray, str]:
    if evolve.manifest is not None:
        return load_theta(evolve.manifest), evolve.manifest.digest
    for row in sorted(validated(evolve.rows(run)), key=lambda row: row["validation"], reverse=True):
        if mean_key(evolve.folder, int(row["generation"])) in run.storage.sizes(f"{evolve.folder}/means"):
            return load_mean(run.storage, evolve.folder, row), row["theta_sha256"]
    raise UserError(
        f"no validated C in {run.uri} yet: run `python -m jobs.evolve --run {run.uri}` at least until its first"
        " validation"
    )


def has_decoder(vision: Manifest) -> bool:
    """Whether this V can decode: an agent file may come without its decoder."""
    return bool(vision.content.get("decodes", True))
