"""The VAE in training, on the frames of the rollouts."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from wm.config.schema import Config
from wm.config.schema import Vision as Section
from wm.envs import FRAME, load
from wm.models.build import untrained_vision
from wm.models.vision import VAE
from wm.runs.shards import PIXELS, DataSet, FrameStream
from wm.seeds import derive
from wm.training.learner import Learner, split
from wm.training.weights import start_from

MEASURED = 1024  # held-out frames that a measurement looks at


class VisionLearner(Learner):
    model: VAE
    section: Section

    def __init__(self, config: Config, data: DataSet, device: str):
        section = config.vision
        torch.manual_seed(derive(config.seed + section.seed, "vision", "untrained"))
        model = untrained_vision(section.kind, section.z)
        start_from(model, section.init, "vision")
        super().__init__("vision", model, section, config.seed, device)
        training, test = split(len(data.lengths), section.held_out)
        self.stream = FrameStream(data, training, section.batch, derive(self.seed, "vision", "order"))
        self.game = load(config.game)
        self.measured = torch.from_numpy(spread(data, test))  # (B, 64, 64, 3)

    def batches(self, start: int) -> Iterator[Tensor]:
        if self.device == "cuda" and self._fits():
            frames = self._all_there()
            for positions in self.stream.positions(start):
                yield frames[torch.from_numpy(positions).to(self.device, non_blocking=True)]
        for batch in self.stream.batches(start):
            yield self._there(torch.from_numpy(batch))

    def _fits(self) -> bool:
        """Whether a GPU can hold all frames and still has half of its free memory to train in."""
        return 2 * int(self.stream.data.lengths.sum()) * PIXELS < torch.cuda.mem_get_info()[0]

    def _all_there(self) -> Tensor:
        data, at = self.stream.data, 0
        frames = torch.empty((int(data.lengths.sum()), *FRAME), dtype=torch.uint8, device=self.device)
        for episode, length in enumerate(data.lengths):
            frames[at : at + length] = torch.from_numpy(data.read(episode, ["frame"])["frame"].copy())
            at += int(length)
        return frames

    def held_out(self) -> Iterator[tuple[Tensor, float]]:
        for frames in self.measured.split(128):
            yield self._there(frames), len(frames)

    def losses(self, batch: Tensor, purpose: str, number: int) -> dict[str, Tensor]:
        noise = torch.randn(len(batch), self.section.z, generator=self.generator(purpose, number))
        return self.model.losses(batch, noise.to(self.device, non_blocking=True), self.section.kl_weight)

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        self.model.eval()
        decoded = [
            self.model.decode(self.model.encode(self._there(part))[0]).cpu() for part in self.measured.split(128)
        ]
        return self.game.measure(self.measured, torch.cat(decoded))

    def _there(self, frames: Tensor) -> Tensor:
        return frames.pin_memory().to(self.device, non_blocking=True) if self.device == "cuda" else frames


def spread(data: DataSet, episodes: np.ndarray) -> np.ndarray:
    """About MEASURED frames, evenly from all these episodes."""
    each = -(-MEASURED // len(episodes))
    picked = []
    for episode in episodes[:MEASURED]:
        frames = data.read(int(episode), ["frame"])["frame"]
        picked.append(frames[np.linspace(0, len(frames) - 1, min(each, len(frames))).astype(int)])
    return np.concatenate(picked)
