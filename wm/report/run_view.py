"""The state of a run for its report. A missing part raises a UserError that names the job which produces it."""

from functools import cached_property
from typing import Any

import numpy as np
import torch

from wm.agents.artifacts import load_memory, load_vision
from wm.agents.trained import Trained, best_so_far
from wm.errors import UserError
from wm.models.memory import MDNRNN
from wm.models.vision import Vision
from wm.report.published import PUBLISHED, Published
from wm.runs.datasets import latents_of, rollouts_of
from wm.runs.manifest import Manifest
from wm.runs.run import Run
from wm.runs.shards import DataSet
from wm.runs.status import StageStatus, stage_statuses
from wm.training.learner import split
from wm.training.sequences import Sequences
from wm.training.vision import spread
from wm.visuals.pictures import EncodedFrames

FRAMES, EPISODES = 192, 16  # held-out frames for V, and the number of episodes that they come from
SEQUENCES, STEPS = 4, 400  # held-out sequences for M, and their maximum length


class RunView:
    """A run at one moment: stages are read once, so a job that is still running does not mix two states."""

    def __init__(self, run: Run):
        self.run, self.config = run, run.config.check()
        self.stages: dict[str, StageStatus] = stage_statuses(run)

    @property
    def published(self) -> Published | None:
        return PUBLISHED.get(self.config.game)

    def manifest(self, stage: str) -> Manifest | None:
        return self.stages[stage].manifest

    def need(self, stage: str) -> Manifest:
        return self.stages[stage].need(self.run)

    def rows(self, stage: str) -> list[dict[str, Any]]:
        """The curves of a stage; raises a UserError if there are none."""
        rows = self.stages[stage].rows(self.run)
        if not rows:
            self.need(stage)
            raise UserError(f"{self.run.uri} no longer contains the curves of the {stage} stage")
        return rows

    @cached_property
    def agent(self) -> Trained:
        return best_so_far(self.run)

    @cached_property
    def encoded_frames(self) -> EncodedFrames:
        """Held-out frames with their reconstructions."""
        self.need("vision")
        data = rollouts_of(self.need("collect"))
        episodes = _held_out(data, self.config.vision.held_out, EPISODES)
        return EncodedFrames(self.vision, torch.from_numpy(spread(data, np.array(episodes), FRAMES)[0]))

    @cached_property
    def held_out_sequences(self) -> Sequences:
        """Held-out sequences of latents, padded to one length."""
        self.need("memory")
        data = latents_of(self.need("latents"))
        columns = ("mu", "logvar", "action", "reward", "terminated")
        episodes = _held_out(data, self.config.memory.held_out, SEQUENCES)
        parts = [data.read(episode, columns) for episode in episodes]
        steps = min(STEPS, max(len(part["mu"]) for part in parts))
        lengths = torch.tensor([min(steps, len(part["mu"])) for part in parts])[:, None]  # (B, 1)
        t = torch.arange(steps)[None]  # (1, T)
        padded = {name: torch.stack([_padded(part[name], steps) for part in parts]) for name in columns}
        return Sequences(
            padded["mu"],
            padded["logvar"],
            padded["action"],
            padded["reward"],
            padded["terminated"],
            (t < lengths).float(),
            (t < lengths - 1).float(),
        )

    @cached_property
    def vision(self) -> Vision:
        return load_vision(self.need("vision"))

    @cached_property
    def memory(self) -> MDNRNN:
        return load_memory(self.need("memory"), self.vision.z)


def _held_out(data: DataSet, one_in: int, count: int) -> list[int]:
    """Evenly spaced episodes of the held-out part."""
    test = split(len(data.lengths), one_in)[1]
    return [int(test[index]) for index in np.linspace(0, len(test) - 1, min(count, len(test))).astype(int)]


def _padded(values: np.ndarray, steps: int) -> torch.Tensor:
    part = torch.from_numpy(values[:steps].astype(np.float32))
    return torch.cat((part, part.new_zeros(steps - len(part), *part.shape[1:])))
