"""Shoves: for some moments of an episode a random action is held, whatever C does; then C has to find back.

Who drives well hardly ever meets the grass, so evolution can't tell who would find out of it. Shoved off the road,
candidates show it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wm.seeds import generator

REACH = 2.0  # of what is held, before the squash: from full lock to full lock
HELD = 5, 40  # steps; the longer ones end far off the road
WHEN = 0.05, 0.6  # of an episode's steps: there is something to find back to, and time for it


@dataclass(frozen=True)
class Shoves:
    """One for each episode of a batch; an empty one where nothing is held."""

    first: Tensor  # (E, 1), the step at which it begins
    end: Tensor  # (E, 1)
    raw: Tensor  # (E, A), in place of C's output

    def on(self, step: int) -> Tensor:
        """Which episodes are in one. (E, 1)"""
        return (self.first <= step) & (step < self.end)


def shoves(seeds: Sequence[int], share: float, actions: int, steps: int) -> Shoves:
    """For a share of these episodes of at most so many steps; the same whoever plays them."""
    first, end = np.zeros((2, len(seeds), 1), int)
    raw = np.zeros((len(seeds), actions), np.float32)
    for episode, seed in enumerate(seeds):
        rng = generator("shove", seed)
        shoved = rng.random() < share
        begin, held = int(steps * rng.uniform(*WHEN)), int(rng.integers(*HELD))
        first[episode], end[episode] = begin, begin + held if shoved else 0
        raw[episode] = rng.uniform(-REACH, REACH, actions)
    return Shoves(*map(torch.from_numpy, (first, end, raw)))
