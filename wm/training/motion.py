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
SAMPLED = 64  # episodes from which the weights of pixels are computed
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


def change_weights(data: DataSet, episodes: np.ndarray, weight: float) -> Tensor:
    """Weights of V's pixels, 1 plus a share in proportion to how much each changes within episodes. (64, 64, 1) fp32

    Where things move, an error weighs more, whether a thing is missing there or shown where it is not. What stands
    still within episodes, such as the ground, does not count, even if it differs between them. `weight` is the mean
    share.
    """
    change = np.zeros((*FRAME[:2], 1))
    for episode in episodes[np.linspace(0, len(episodes) - 1, min(SAMPLED, len(episodes))).astype(int)]:
        frames = data.read(int(episode), ["frame"])["frame"].astype(np.float32) / 255  # (T, 64, 64, 3)
        change += np.abs(frames - frames.mean(axis=0)).mean(axis=(0, 3))[..., None]
    mean = change.mean()
    return torch.from_numpy((1 + weight * change / mean if mean else np.ones_like(change)).astype(np.float32))
