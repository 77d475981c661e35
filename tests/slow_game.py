"""A game that waits in each step, as a slow simulator does, so that hours of play leave the processor to others."""

import os
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

SLOW = "gym:slow_game:Slow-v0"
WAIT = "SLOW_GAME_SECONDS"  # environment variable: seconds that each step waits
SIZE, STEPS = 64, 50


class Slow(gymnasium.Env):
    """A bright square on a dark ground, moved by two numbers; reward is how close it is to the middle."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    action_space = Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def _seen(self) -> np.ndarray:
        image = np.full((SIZE, SIZE, 3), 30, np.uint8)
        row, column = self.place.astype(int)
        image[row : row + 8, column : column + 8] = 220
        return image

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(0, SIZE - 8, 2)
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        time.sleep(float(os.environ.get(WAIT, "0")))
        self.place = np.clip(self.place + 2 * np.asarray(action, float), 0, SIZE - 8)
        return self._seen(), 1 - float(np.abs(self.place - 28).mean()) / 28, False, False, {}


gymnasium.register(id="Slow-v0", entry_point=Slow, max_episode_steps=STEPS)
