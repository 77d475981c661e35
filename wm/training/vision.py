"""V's training on the frames of the rollouts."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from wm.config.schema import Vision as Section
from wm.envs import FRAME, Game
from wm.models.build import new_vision
from wm.models.vision import VAE
from wm.runs.shards import PIXELS, DataSet, FrameStream
from wm.seeds import derive
from wm.training.learner import Learner, split
from wm.training.motion import change_weights, motion_shown, pairs
from wm.training.weights import start_from

EVALUATED = 1024  # held-out frames of an evaluation


class VisionLearner(Learner):
    model: VAE
    section: Section

    def __init__(self, section: Section, game: Game, seed: int, data: DataSet, device: str):
        torch.manual_seed(derive(seed + section.seed, "vision", "untrained"))
        model = new_vision(section.kind, section.z)
        start_from(model, section.init, "vision")
        super().__init__("vision", model, section, seed, device)
        training, test = split(len(data.lengths), section.held_out)
        self.stream = FrameStream(data, training, section.batch, derive(self.seed, "vision", "order"))
        self.game = game
        self.measured = torch.from_numpy(spread(data, test, EVALUATED))  # (B, 64, 64, 3)
        self.moving = pairs(data, test)
        self.weight: Tensor | None = None  # of pixels, (64, 64, 1)
        if section.change_weight:
            self.weight = change_weights(data, training, section.change_weight).to(device)

    def batches(self, start: int) -> Iterator[Tensor]:
        if self.device == "cuda" and self._fits():
            frames = self._all_on_device()
            for positions in self.stream.positions(start):
                yield frames[torch.from_numpy(positions).to(self.device, non_blocking=True)]
        for batch in self.stream.batches(start):
            yield self._on_device(torch.from_numpy(batch))

    def _fits(self) -> bool:
        """Whether all frames fit in half of the GPU's free memory; the rest is for training."""
        return 2 * int(self.stream.data.lengths.sum()) * PIXELS < torch.cuda.mem_get_info()[0]

    def _all_on_device(self) -> Tensor:
        data, at = self.stream.data, 0
        frames = torch.empty((int(data.lengths.sum()), *FRAME), dtype=torch.uint8, device=self.device)
        for episode, length in enumerate(data.lengths):
            frames[at : at + length] = torch.from_numpy(data.read(episode, ["frame"])["frame"].copy())
            at += int(length)
        return frames

    def held_out(self) -> Iterator[tuple[Tensor, float]]:
        for frames in self.measured.split(128):
            yield self._on_device(frames), len(frames)

    def losses(self, batch: Tensor, purpose: str, number: int) -> dict[str, Tensor]:
        noise = torch.randn(len(batch), self.section.z, generator=self.generator(purpose, number))
        noise = noise.to(self.device, non_blocking=True)
        if self.weight is None:
            return self.model.losses(batch, noise, self.section.kl_weight)
        return self.model.losses(batch, noise, self.section.kl_weight, self.weight)

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        self.model.eval()
        measures = self.game.measure(self.measured, self._reconstructed(self.measured))
        shown = motion_shown(self._reconstructed, *self.moving)
        return measures if shown is None else measures | {"motion_shown": shown}

    def _reconstructed(self, frames: Tensor) -> Tensor:
        parts = [self.model.decode(self.model.encode(self._on_device(part))[0]).cpu() for part in frames.split(128)]
        return torch.cat(parts)

    def _on_device(self, frames: Tensor) -> Tensor:
        return frames.pin_memory().to(self.device, non_blocking=True) if self.device == "cuda" else frames


def spread(data: DataSet, episodes: np.ndarray, count: int) -> np.ndarray:
    """About `count` frames, spread evenly over these episodes."""
    each = -(-count // len(episodes))
    picked = []
    for episode in episodes[:count]:
        frames = data.read(int(episode), ["frame"])["frame"]
        picked.append(frames[np.linspace(0, len(frames) - 1, min(each, len(frames))).astype(int)])
    return np.concatenate(picked)
