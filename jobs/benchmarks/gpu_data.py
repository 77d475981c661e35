"""Learners and dreams for the benchmark and the tests of GPUs, on random data in memory. Needs torch and numpy only."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from wm.config.fields import of_kind
from wm.config.presets import PRESETS
from wm.dream.population import Dream
from wm.dream.rules import Rules
from wm.dream.starts import Starts
from wm.dream.world import World
from wm.envs import FRAME, load
from wm.models.build import controller_of, new_memory
from wm.runs.shards import DataSet
from wm.training.memory import MemoryLearner
from wm.training.vaegan import VaeGanLearner
from wm.training.vision import VisionLearner

Precision = Literal["float32", "bfloat16"]


class RandomData(DataSet):
    """Episodes of random frames or latents."""

    def __init__(self, episodes: int, steps: int, z: int = 32, actions: int = 3):
        super().__init__([], readers=1)
        self.lengths = np.full(episodes, steps, np.int64)
        rng = np.random.default_rng(1)
        latents = dict.fromkeys(("mu", "logvar"), (steps, z)) | {"action": (steps, actions)}
        self.columns: dict[str, np.ndarray] = {
            name: rng.standard_normal(shape, dtype=np.float32) for name, shape in latents.items()
        }
        self.columns |= {"reward": rng.standard_normal(steps), "terminated": np.arange(steps) == steps - 1}
        self.frames = rng.integers(0, 256, (64, *FRAME), dtype=np.uint8)

    def read(self, episode: int, columns: Sequence[str]) -> dict[str, np.ndarray]:
        if "frame" in columns:
            numbers = (np.arange(self.lengths[episode]) + episode) % len(self.frames)
            return {"frame": self.frames[numbers]}
        return {name: self.columns[name] for name in columns}


def vision_learner(
    device: str, precision: Precision = "float32", batch: int = 32, kind: Literal["vae", "vaegan"] = "vae"
) -> VisionLearner:
    section = replace(PRESETS["car-racing"].vision, precision=precision, batch=batch, kind=kind)
    learner = VaeGanLearner if kind == "vaegan" else VisionLearner
    return learner(section, load("car-racing"), 1, RandomData(20, 500), device)


def memory_learner(
    device: str, precision: Precision = "float32", preset: str = "car-racing", **changes: Any
) -> MemoryLearner:
    """With the sizes of this preset."""
    config = PRESETS[preset]
    config = replace(config, memory=replace(config.memory, precision=precision, **changes))
    data = RandomData(20, 1200, config.vision.z, load(config.game).actions)
    return MemoryLearner(config.memory, of_kind(config, "bits"), data, device)


def dream(
    device: str, preset: str = "car-racing", squash: Any = None, steps: int = 160, dtype: Any = torch.float32
) -> Dream:
    """Dreams with an untrained M of the preset's sizes."""
    config = PRESETS[preset]
    size = config.vision.z
    torch.manual_seed(1)
    memory = new_memory(of_kind(config, "bits"), size).eval()
    starts = Starts(np.zeros((1, size), np.float32), np.zeros((1, size), np.float32))
    rules = Rules(steps=steps, done="never", reward="head" if config.memory.reward else "survival")
    squash = squash or load(config.game).squash
    return Dream(World(memory, starts, rules, squash, device=device), controller_of(config))


def thetas(made: Dream, candidates: int) -> np.ndarray:
    """(P, N)"""
    return np.random.default_rng(1).normal(0, 0.03, (candidates, made.controller.size))
