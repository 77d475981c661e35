"""CarRacing: drive a racing car around a track that is a new one each episode."""

import math
from typing import Any

import cv2
import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.wrappers import TimeLimit
from torch import Tensor

from wm.envs.carracing_fast import Blind
from wm.envs.carracing_fast import CarRacing as Fast
from wm.envs.carracing_measures import car_and_road
from wm.envs.carracing_scaling import ROWS
from wm.envs.carracing_state import state
from wm.envs.game import FRAME, Game

MAX_STEPS = 1000
# What one pedal gives at most. Brakes are several times as strong as the engine at the usual speed.
GAS, BRAKE = 0.5, 0.1
BEND = 8  # tiles, as many as a hairpin has at least


class CarRacing(Game):
    name = "car-racing"
    version = "2"
    actions = 3  # steer in [-1, 1], gas and brake in [0, 1]
    pedals = True
    max_steps = MAX_STEPS
    lap, step_price = 1000.0, 0.1
    random_rewards = 110
    explorations = ("mixture", "mild", "held", "brownian")

    def make(self, exact: bool = False) -> gymnasium.Env:
        return Exact() if exact else TimeLimit(Fast("rgb_array", lap_complete_percent=1.0, size=64), MAX_STEPS)

    def squash(self, raw: Tensor) -> Tensor:
        if raw.shape[-1] == 3:  # as in the paper
            steer, gas, brake = raw.tanh().unbind(-1)
            return torch.stack((steer, (gas + 1) / 2, brake.clamp(min=0)), -1)
        steer, pedal = raw.tanh().unbind(-1)
        return torch.stack((steer, GAS * pedal.clamp(min=0), BRAKE * (-pedal).clamp(min=0)), -1)

    def explore(self, kind: str, steps: int, rng: np.random.Generator) -> np.ndarray:
        if kind == "mixture":
            kind = str(rng.choice(self.explorations[1:]))
        if kind == "held":
            steer, gas, brake = _held(steps, rng).T
        elif kind == "brownian":
            steer, gas, brake = _brownian(steps, rng).T
        elif kind == "mild":  # the car gets somewhere, how far and how fast differs between episodes
            steer, gas, brake = (_held if rng.random() < 0.5 else _brownian)(steps, rng).T
            steer = steer * rng.uniform(0.05, 0.3)
            gas = (gas + 1) * rng.uniform(0.05, 0.4) - 1
            brake = brake - 0.8
        else:
            raise ValueError(f"car-racing explores as {', '.join(self.explorations)}, not as {kind!r}")
        return np.stack((steer, (gas + 1) / 2, np.maximum(brake, 0)), -1).astype(np.float32)

    def measure(self, frames: Tensor, decoded: Tensor) -> dict[str, float]:
        return car_and_road(frames, decoded)

    def visited(self, seed: int, actions: np.ndarray) -> dict[str, np.ndarray]:
        env = Blind()
        env.reset(seed=seed)
        assert env.car is not None
        assert env.road is not None
        speeds = np.zeros(len(actions))
        for step, action in enumerate(actions):
            env.step(action)
            speeds[step] = math.hypot(*env.car.hull.linearVelocity)
        tiles = np.array([tile.road_visited for tile in env.road])
        env.close()
        return {"tiles": tiles, "speed": speeds}

    def hardness(self, seed: int) -> float:
        """By how much the road turns in its sharpest bend, radians a tile; 0.22 to 0.31 in eight of ten tracks."""
        env = Blind()
        env.reset(seed=seed)
        runs = np.array(env.track)[:, 1]  # in which direction the road runs at each tile
        env.close()
        turns = np.diff(runs, append=runs[: BEND + 1])
        turns = np.abs((turns + math.pi) % (2 * math.pi) - math.pi)
        return float(np.convolve(turns, np.full(BEND, 1 / BEND), "valid").max())

    def state(self, env: Any) -> dict[str, float]:
        return state(env.unwrapped)


def _held(steps: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform in [-1, 1], each held for 2 to 20 steps. (T, 3)"""
    raw = rng.uniform(-1, 1, (steps // 2 + 1, 3))
    return raw.repeat(rng.integers(2, 21, len(raw)), axis=0)[:steps]


def _brownian(steps: int, rng: np.random.Generator) -> np.ndarray:
    """A random walk, reflected at -2 and 2 and squashed. (T, 3)"""
    raw = rng.uniform(-2, 2, 3) + rng.normal(0, 0.15, (steps, 3)).cumsum(0)
    return np.tanh(np.abs((raw - 2) % 8 - 4) - 2)


class Exact(gymnasium.ObservationWrapper):
    """The unmodified CarRacing-v3, its picture cut and shrunk for V."""

    def __init__(self):
        # laps need all tiles anyhow in gymnasium 1.4; naming it keeps scores comparable if that is mended
        # and `render` draws only when asked to
        super().__init__(gymnasium.make("CarRacing-v3", lap_complete_percent=1.0, render_mode="rgb_array"))
        self.observation_space = Box(0, 255, FRAME, np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return cv2.resize(observation[:ROWS], FRAME[:2], interpolation=cv2.INTER_AREA)
