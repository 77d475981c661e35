"""What moves in the frames of a game: whether V reconstructs it, and how to weigh it in V's loss.

In a game with a still background, the thing that matters may be a few pixels. A V that leaves it out has a small error,
and a C that sees only z is blind to it.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from wm.envs import FRAME
from wm.runs.shards import DataSet

APART = 4  # steps between the two frames of a pair
PAIRS = 256
SAMPLED = 8  # frames of an episode from which the mean difference is computed
CHANGED = 0.08  # least difference of a pixel, in [0, 1], that counts as a change
BLIND = 0.1  # V misses what moves if its reconstructions show less of the changes than this


def pairs(data: DataSet, episodes: np.ndarray, count: int = PAIRS) -> tuple[Tensor, Tensor]:
    """Frames of these episodes and the frames a few steps later, each (B, 64, 64, 3) uint8."""
    each, before, after = -(-count // len(episodes)), list[np.ndarray](), list[np.ndarray]()
    for episode in episodes[:count]:
        frames = data.read(int(episode), ["frame"])["frame"]
        last = len(frames) - 1
        begins = np.unique(np.linspace(0, max(0, last - APART), each).astype(int))
        before.append(frames[begins])
        after.append(frames[np.minimum(begins + APART, last)])
    return torch.from_numpy(np.concatenate(before)), torch.from_numpy(np.concatenate(after))


def motion_shown(reconstruct: Callable[[Tensor], Tensor], before: Tensor, after: Tensor) -> float | None:
    """The share of the changes between frames that their reconstructions show; None if nothing changes.

    1 minus the squared error of the reconstructed change, relative to the squared change, over the pixels that change.
    A V that leaves out what moves has about 0.
    """
    change = (after.float() - before.float()) / 255  # (B, 64, 64, 3)
    changed = change.abs().amax(dim=-1, keepdim=True) > CHANGED  # (B, 64, 64, 1)
    total = float((changed * change**2).sum())
    if not total:
        return None
    error = (reconstruct(after) - reconstruct(before) - change) ** 2
    return 1 - float((changed * error).sum()) / total


class ChangeWeights:
    """Weights of V's pixels: 1, plus a share in proportion to their difference from the episode's mean frame.

    Things that move stand out from the mean frame, and the ground does not, even if it differs between episodes.
    Without such weights a V that is not sure where a small thing is does best to leave it out. `weight` is the mean
    share.
    """

    def __init__(self, data: DataSet, weight: float, device: str):
        self.usual = torch.empty((len(data.lengths), *FRAME), dtype=torch.float16, device=device)  # (E, 64, 64, 3)
        difference = 0.0
        for episode, read in enumerate(data.read_all(range(len(data.lengths)), ["frame"])):
            frames = read["frame"]
            mean = frames.mean(axis=0, dtype=np.float32) / 255
            self.usual[episode] = torch.from_numpy(mean)
            sample = frames[np.linspace(0, len(frames) - 1, SAMPLED).astype(int)].astype(np.float32) / 255
            difference += float(np.abs(sample - mean).mean())
        self.scale = weight * len(data.lengths) / difference if difference else 0.0

    def __call__(self, frames: Tensor, episodes: Tensor) -> Tensor:
        """uint8 frames (B, 64, 64, 3) and their episodes (B,) -> (B, 64, 64, 1)"""
        usual = self.usual.index_select(0, episodes).float()
        return 1 + self.scale * (frames / 255 - usual).abs().mean(dim=-1, keepdim=True)
