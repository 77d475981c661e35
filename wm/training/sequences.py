"""Latents as padded sequences for the training of M."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wm.runs.shards import MIRRORED, DataSet


@dataclass(frozen=True)
class Sequences:
    """A batch of padded sequences of latents."""

    mu: Tensor  # (B, T, Z)
    logvar: Tensor  # (B, T, Z)
    a: Tensor  # (B, T, A)
    reward: Tensor  # (B, T)
    done: Tensor  # (B, T), 1 if the game ended the episode; a time limit does not count
    mask: Tensor  # (B, T), 1 if there is a step
    next_mask: Tensor  # (B, T), 1 if another step follows


class Episodes:
    """The latents of all episodes, in memory: about 300 bytes per step with 32 dimensions of z.

    With `mirror`, the columns also hold the mirror image of every step.
    """

    def __init__(self, data: DataSet, device: str | torch.device, mirror: tuple[float, ...] = ()):
        columns = ["mu", "logvar", "action", "reward", "terminated", *(MIRRORED if mirror else ())]
        parts: dict[str, list[np.ndarray]] = {name: [] for name in columns}
        for read in data.read_all(range(len(data.lengths)), columns):
            for name, values in read.items():
                parts[name].append(values.astype(np.float32))
        if mirror:
            for name, mirrored in zip(("mu", "logvar"), MIRRORED, strict=True):
                parts[name] += parts.pop(mirrored)
            parts["action"] += [values * np.array(mirror, np.float32) for values in parts["action"]]
            for name in ("reward", "terminated"):
                parts[name] *= 2
        self.lengths = torch.from_numpy(data.lengths)
        self.begins = torch.cumsum(self.lengths, 0) - self.lengths
        self.columns = {name: torch.from_numpy(np.concatenate(values)).to(device) for name, values in parts.items()}

    def windows(self, episodes: Tensor, starts: Tensor, mirrored: Tensor | None = None) -> Tensor:
        """For each (episode, start): the episode's first step in the columns, the start, and its length. (3, B)"""
        first = self.begins[episodes]
        if mirrored is not None:
            first = first + mirrored * self.lengths.sum()
        return torch.stack((first, starts, self.lengths[episodes]))

    def sequences(self, windows: Tensor, length: int) -> Sequences:
        """One sequence of up to `length` steps from each window, which are on the columns' device."""
        first, starts, lengths = windows.unsqueeze(-1)  # (B, 1) each
        offsets = starts + torch.arange(length, device=windows.device)  # (B, T), within the episode
        index = first + offsets.minimum(lengths - 1)  # (B, T)
        taken = {name: values[index] for name, values in self.columns.items()}
        return Sequences(
            taken["mu"],
            taken["logvar"],
            taken["action"],
            taken["reward"],
            taken["terminated"],
            (offsets < lengths).float(),
            (offsets < lengths - 1).float(),
        )
