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

    def __init__(self, data: DataSet, device: str, mirror: tuple[float, ...] = ()):
        columns = ["mu", "logvar", "action", "reward", "terminated", *(MIRRORED if mirror else ())]
        parts: dict[str, list[np.ndarray]] = {name: [] for name in columns}
        for episode in range(len(data.lengths)):
            for name, values in data.read(episode, columns).items():
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
        self.device = device

    def sequences(self, episodes: Tensor, starts: Tensor, length: int, mirrored: Tensor | None = None) -> Sequences:
        """One sequence of up to `length` steps from each (episode, start), `mirrored` or not."""
        offsets = starts[:, None] + torch.arange(length)  # (B, T), within the episode
        lengths = self.lengths[episodes][:, None]
        index = (self.begins[episodes][:, None] + offsets.clamp(max=lengths - 1)).to(self.device)  # (B, T)
        if mirrored is not None:
            index += (mirrored[:, None] * self.lengths.sum()).to(self.device)
        taken = {name: values[index] for name, values in self.columns.items()}
        return Sequences(
            taken["mu"],
            taken["logvar"],
            taken["action"],
            taken["reward"],
            taken["terminated"],
            (offsets < lengths).float().to(self.device),
            (offsets < lengths - 1).float().to(self.device),
        )
