"""Coverage: the tiles, speeds and cells of latent space that the rollouts of a round have visited.

Cells of latent space are counted with the V of the first round for all rounds, so that the numbers are comparable.
"""

from dataclasses import dataclass

import numpy as np
import torch

from wm.envs import Game
from wm.models.vision import Vision, encode_in_batches
from wm.runs.datasets import latents_of, own_rollouts
from wm.runs.manifest import Manifest
from wm.runs.shards import DataSet

EPISODES = 64  # evenly chosen; takes some seconds
EVERY = 8  # frames; neighbouring ones are nearly the same
AXES = 4  # principal components of z; cells are cubes with sides of one standard deviation
SPEED = 5.0  # width of a bin, in units per second


@dataclass(frozen=True)
class LatentGrid:
    """A V and the principal components of its z, scaled to a standard deviation of 1: the axes of a grid of cells."""

    vision: Vision
    mean: np.ndarray  # (Z,)
    axes: np.ndarray  # (Z, AXES)

    @staticmethod
    def of(vision: Vision, latents: Manifest) -> "LatentGrid":
        """From latents of this V."""
        data = latents_of(latents)
        mu = np.concatenate([data.read(number, ["mu"])["mu"][::EVERY] for number in chosen(data)]).astype(float)
        values, vectors = np.linalg.eigh(np.cov(mu.T))  # rising
        return LatentGrid(vision, mu.mean(axis=0), vectors[:, -AXES:] / np.sqrt(np.maximum(values[-AXES:], 1e-12)))

    @torch.inference_mode()
    def cells(self, frames: np.ndarray) -> np.ndarray:
        """The cells of these frames (T, 64, 64, 3). (T, AXES)"""
        mu, _ = encode_in_batches(self.vision.encode, torch.from_numpy(frames.copy()))
        return np.floor((mu.numpy().astype(float) - self.mean) @ self.axes).astype(int)


def coverage(made: Manifest, game: Game, grid: LatentGrid) -> dict[str, float]:
    """Coverage of a round's own rollouts: distinct cells of z and, if the game provides them, tiles and speeds."""
    data = own_rollouts(made)
    seeds = [episode["seed"] for record in made.content["shards"] for episode in record["episodes"]]
    cells, visited = [], []
    for number in chosen(data):
        found = data.read(number, ["frame", "action"])
        cells.append(grid.cells(found["frame"][::EVERY]))
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
    """The episodes that are evaluated."""
    count = len(data.lengths)
    return [int(number) for number in np.linspace(0, count - 1, min(count, EPISODES)).round()]


def entropy(counts: np.ndarray) -> float:
    """In bits: 2 to this power is the number of equally filled bins with the same entropy."""
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())
