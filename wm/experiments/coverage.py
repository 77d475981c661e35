"""What a round of rollouts got to see: of the road, of the speeds, of the space of z.

A pure function of the rollouts and of the eyes that look at them. Those of the first round serve for all rounds, and
for all runs that share it, so that their numbers compare.
"""

from dataclasses import dataclass

import numpy as np
import torch

from wm.envs import Game
from wm.models.vision import Vision
from wm.runs.datasets import data_set
from wm.runs.run import Manifest
from wm.runs.shards import DataSet

EPISODES = 64  # that are looked at, evenly chosen: some seconds
EVERY = 8  # neighbouring frames are nearly the same
AXES = 4  # principal components of z; cells are cubes of one deviation each
SPEED = 5.0  # units a second, the width of a bin


@dataclass(frozen=True)
class LatentGrid:
    """A V, and the directions in which its z differs most, each scaled to a deviation of 1."""

    vision: Vision
    mean: np.ndarray  # (Z,)
    axes: np.ndarray  # (Z, AXES)

    @staticmethod
    def of(vision: Vision, latents: Manifest) -> "LatentGrid":
        """As these latents of its own vary."""
        data = data_set(latents, "encode")
        mu = np.concatenate([data.read(number, ["mu"])["mu"][::EVERY] for number in chosen(data)]).astype(float)
        values, vectors = np.linalg.eigh(np.cov(mu.T))  # rising
        return LatentGrid(vision, mu.mean(axis=0), vectors[:, -AXES:] / np.sqrt(np.maximum(values[-AXES:], 1e-12)))

    @torch.inference_mode()
    def cells(self, frames: np.ndarray) -> np.ndarray:
        """(T, 64, 64, 3) to the cells that they lie in. (T, AXES)"""
        parts = [self.vision.encode(part)[0] for part in torch.from_numpy(frames.copy()).split(64)]
        return np.floor((torch.cat(parts).numpy().astype(float) - self.mean) @ self.axes).astype(int)


def coverage(made: Manifest, game: Game, eyes: LatentGrid) -> dict[str, float]:
    """Of a round's own rollouts: distinct cells of z, and what the game tells of tiles and speeds."""
    data = data_set(made, "collect")
    seeds = [episode["seed"] for record in made.content["shards"] for episode in record["episodes"]]
    cells, visited = [], []
    for number in chosen(data):
        found = data.read(number, ["frame", "action"])
        cells.append(eyes.cells(found["frame"][::EVERY]))
        visited.append(game.visited(seeds[number], found["action"]))
    counts = np.unique(np.concatenate(cells), axis=0, return_counts=True)[1]
    result = {"frames": int(counts.sum()), "cells": len(counts), "cells_entropy": entropy(counts)}
    if all("tiles" in one for one in visited):
        result["tiles"] = int(sum(one["tiles"].sum() for one in visited))
        result["track_share"] = float(np.mean([one["tiles"].mean() for one in visited]))
    if all("speed" in one for one in visited):
        speeds = np.concatenate([one["speed"] for one in visited])
        bins = np.unique(np.floor(speeds / SPEED), return_counts=True)[1]
        result |= {"speed": float(speeds.mean()), "speed_bins": len(bins), "speed_entropy": entropy(bins)}
    return result


def chosen(data: DataSet) -> list[int]:
    """The episodes that are looked at."""
    count = len(data.lengths)
    return [int(number) for number in np.linspace(0, count - 1, min(count, EPISODES)).round()]


def entropy(counts: np.ndarray) -> float:
    """In bits: its power of 2 is the number of bins that would be as even."""
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())
