"""Any gymnasium environment with images, by its id: `--game gym:CarRacing-v3?continuous=false`.

The module that registers an environment goes before its id (`gym:ale_py:ALE/Pong-v5`), keyword arguments after it. The
frame is the observation if that is an image, otherwise the rendering. M and C see discrete actions as one-hot vectors.
"""

import json
import os
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import cv2
import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from wm.envs.game import FRAME, Game
from wm.errors import UserError

MAX_STEPS = 1000  # if the environment has no limit of its own
HELD = 10  # maximum steps for which a random policy holds an action


@cache
def any_game(name: str) -> "AnyGame":
    """Cached by name, because the actions are only known once an environment is made."""
    return AnyGame(name)


class AnyGame(Game):
    explorations = ("mixture", "held", "independent")

    def __init__(self, name: str):
        self.name = name
        env = _make(name)
        self.version = f"gymnasium {gymnasium.__version__}"
        self.max_steps = (env.spec.max_episode_steps if env.spec else None) or MAX_STEPS
        space = env.action_space
        self.discrete = isinstance(space, Discrete)
        if isinstance(space, Discrete):
            self.actions = int(space.n)
        elif isinstance(space, Box) and np.isfinite(space.low).all() and np.isfinite(space.high).all():
            self.actions = int(np.prod(space.shape))
            self.low, self.high = (torch.tensor(x.reshape(-1), dtype=torch.float32) for x in (space.low, space.high))
        else:
            raise UserError(
                f"the actions of {name} must be a Discrete or a bounded Box, got {space}: wrap the environment"
            )
        env.close()

    def make(self, exact: bool = False) -> gymnasium.Env:
        return Framed(_make(self.name), self.discrete)

    def squash(self, raw: Tensor) -> Tensor:
        if self.discrete:
            return torch.nn.functional.one_hot(raw.argmax(-1), self.actions).to(raw.dtype)
        low, high = _on_device(self.low, raw.device), _on_device(self.high, raw.device)
        return low + (raw.tanh() + 1) / 2 * (high - low)

    def idle(self) -> np.ndarray:
        """The first of discrete actions, which does nothing in most games; otherwise the numbers closest to 0."""
        if self.discrete:
            return np.eye(self.actions, dtype=np.float32)[0]
        return np.clip(np.zeros(self.actions, np.float32), self.low.numpy(), self.high.numpy())

    def explore(self, kind: str, steps: int, rng: np.random.Generator) -> np.ndarray:
        if kind == "mixture":
            kind = str(rng.choice(self.explorations[1:]))
        if kind not in self.explorations:
            raise ValueError(
                f"the random policy of {self.name} must be one of {', '.join(self.explorations)}, got {kind!r}"
            )
        if self.discrete:
            actions = np.eye(self.actions)[rng.integers(self.actions, size=steps)]
        else:
            actions = rng.uniform(self.low.numpy(), self.high.numpy(), (steps, self.actions))
        if kind == "held":
            actions = actions.repeat(rng.integers(1, HELD + 1, steps), axis=0)[:steps]
        return actions.astype(np.float32)


@cache
def _on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copied once: a recorded graph of a dream must not copy from the CPU."""
    return tensor.to(device)


class Framed(gymnasium.Wrapper):
    """An environment with 64x64 frames for V and actions in C's format."""

    def __init__(self, env: gymnasium.Env, discrete: bool):
        super().__init__(env)
        self.discrete = discrete
        self.observes_images = _is_image(env.observation_space)
        space = env.action_space
        self.shape = space.shape or ()
        self.observation_space = Box(0, 255, FRAME, np.uint8)
        if isinstance(space, Discrete):
            self.first = int(space.start)
            self.action_space = Box(0, 1, (int(space.n),), np.float32)
        elif isinstance(space, Box):
            self.action_space = Box(space.low.reshape(-1), space.high.reshape(-1), dtype=np.float32)

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = self.env.reset(**options)
        return self._frame(observation), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        taken = self.first + int(np.argmax(action)) if self.discrete else np.reshape(action, self.shape)
        observation, reward, terminated, truncated, info = self.env.step(taken)
        return self._frame(observation), reward, terminated, truncated, info

    def _frame(self, observation: Any) -> np.ndarray:
        image = np.asarray(observation if self.observes_images else self.env.render())
        if image.ndim == 2 or image.shape[-1] == 1:
            image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=-1)
        return cv2.resize(image[..., :3], FRAME[:2], interpolation=cv2.INTER_AREA)


def _make(name: str) -> gymnasium.Env:
    """Make `gym:ID?key=value&key=value`; a value that is not JSON is text."""
    id_, _, query = name.removeprefix("gym:").partition("?")
    options = {key: _value(text) for key, text in parse_qsl(query)}
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no screen is needed
    try:
        env = gymnasium.make(id_, render_mode="rgb_array", **options)  # renders only on demand
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"can't make {name} ({reason}): use --game gym:ID with an id that is registered in gymnasium and can be"
            " rendered, or gym:MODULE:ID with the module that registers it"
        ) from None
    modes = env.metadata.get("render_modes") or []
    if not _is_image(env.observation_space) and "rgb_array" not in modes:
        raise UserError(
            f"{name} has no images: use an environment with image observations or the render mode rgb_array"
        )
    return env


def _is_image(space: gymnasium.Space) -> bool:
    return isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def _value(text: str) -> Any:
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return text
