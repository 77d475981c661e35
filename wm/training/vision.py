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
from wm.training.motion import ChangeWeights, motion_shown, pairs
from wm.training.recording import Batch
from wm.training.weights import start_from

EVALUATED = 1024  # held-out frames of an evaluation
TRAINING_MEMORY = 2 * 2**30  # bytes of a GPU for everything but the frames


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
        self.frames: Tensor | None = None  # of all training episodes, on a GPU where they fit
        measured, self.owners = spread(data, test, EVALUATED)
        self.measured = torch.from_numpy(measured)  # (B, 64, 64, 3)
        self.moving = pairs(data, test)
        self.pixel_weights = ChangeWeights(data, section.change_weight, device) if section.change_weight else None

    def batches(self, start: int) -> Iterator[Batch]:
        if self.cuda and self.frames is None and self._fits():
            self.frames = self._all_on_device()
        return super().batches(start)

    def host_batches(self, start: int) -> Iterator[Batch]:
        """Frames or, if they are on the device, their positions; noise; and with change weights their episodes."""
        batches = self.stream.batches(start) if self.frames is None else self.stream.positions(start)
        if self.pixel_weights is None:
            for number, batch in enumerate(batches, start):
                yield torch.from_numpy(batch), self.noise(len(batch), "noise", number)
            return
        ends = np.cumsum(self.stream.data.lengths[self.stream.episodes])
        for number, (batch, positions) in enumerate(zip(batches, self.stream.positions(start), strict=True), start):
            episodes = self.stream.episodes[np.searchsorted(ends, positions, "right")]
            yield torch.from_numpy(batch), self.noise(len(batch), "noise", number), torch.from_numpy(episodes)

    def noise(self, rows: int, purpose: str, number: int) -> Tensor:
        """(B, Z)"""
        return torch.randn(rows, self.section.z, generator=self.generator(purpose, number))

    def _fits(self) -> bool:
        return self.stream.total * PIXELS + TRAINING_MEMORY < torch.cuda.mem_get_info(self.device)[0]

    def _all_on_device(self) -> Tensor:
        frames, at = torch.empty((self.stream.total, *FRAME), dtype=torch.uint8, device=self.device), 0
        for read in self.stream.data.read_all(self.stream.episodes.tolist(), ["frame"]):
            part = torch.from_numpy(read["frame"].copy())
            frames[at : at + len(part)] = part
            at += len(part)
        return frames

    def held_out(self) -> Iterator[tuple[Batch, float]]:
        owners = torch.from_numpy(self.owners).split(128)
        for number, (frames, owner) in enumerate(zip(self.measured.split(128), owners, strict=True)):
            batch = (frames, self.noise(len(frames), "held out", number))
            yield self.on_device(batch if self.pixel_weights is None else (*batch, owner)), len(frames)

    def frames_of(self, batch: Batch) -> Tensor:
        """(B, 64, 64, 3) uint8"""
        frames = batch[0]
        if frames.dtype == torch.int64:  # positions
            assert self.frames is not None
            frames = self.frames.index_select(0, frames)
        return frames

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        frames = self.frames_of(batch)
        weight = None if self.pixel_weights is None else self.pixel_weights(frames, batch[2])
        return self.model.losses(frames, batch[1], self.section.kl_weight, weight)

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        self.model.eval()
        measures = self.game.measure(self.measured, self._reconstructed(self.measured))
        shown = motion_shown(self._reconstructed, *self.moving)
        return measures if shown is None else measures | {"motion_shown": shown}

    def _reconstructed(self, frames: Tensor) -> Tensor:
        parts = [part.to(self.device) for part in frames.split(128)]
        return torch.cat([self.model.decode(self.model.encode(part)[0]).cpu() for part in parts])


def spread(data: DataSet, episodes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """About `count` frames, spread evenly over these episodes, and the episode of each."""
    each = -(-count // len(episodes))
    picked, owners = list[np.ndarray](), list[int]()
    for episode in episodes[:count]:
        frames = data.read(int(episode), ["frame"])["frame"]
        picked.append(frames[np.linspace(0, len(frames) - 1, min(each, len(frames))).astype(int)])
        owners += [int(episode)] * len(picked[-1])
    return np.concatenate(picked), np.array(owners)
