"""Any gymnasium environment with images, by its id: `--game gym:CarRacing-v3?continuous=false`.

The module that registers an environment goes before its id (`gym:ale_py:ALE/Pong-v5`), keyword arguments after it. The
frame is the observation if that is an image, otherwise the rendering. M and C see discrete actions as one-hot vectors.

These arguments are not the environment's:

    skip=4       each action is repeated for 4 steps; their rewards are added, and only the last picture is seen
    stack=3      the last 2 or 3 pictures, in grey, as the channels of one frame: a V without memory then sees motion
    fit=pad      pictures that are not square: stretch (default), pad with black, or crop to the square in the middle
    view=render  the rendering, although the observation is an image
"""

import json
import os
from collections import deque
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
OPTIONS: dict[str, tuple[Any, ...]] = {
    "skip": tuple(range(1, 61)),
    "stack": (1, 2, 3),
    "fit": ("stretch", "pad", "crop"),
    "view": ("observation", "render"),
}
HELD = 10  # maximum steps for which a random policy holds an action


@cache
def any_game(name: str) -> "AnyGame":
    """Cached by name, because the actions are only known once an environment is made."""
    return AnyGame(name)


class AnyGame(Game):
    explorations = ("mixture", "held", "independent")

    def __init__(self, name: str):
        self.name = name
        env, options = _make(name)
        self.version = f"gymnasium {gymnasium.__version__}"
        limit = _limit(env)
        self.own_limit = limit is not None
        self.max_steps = -(-(limit or MAX_STEPS) // options["skip"])
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
        env, options = _make(self.name)
        return Framed(env, self.discrete, **options)

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

    def __init__(
        self, env: gymnasium.Env, discrete: bool, skip: int = 1, stack: int = 1, fit: str = "stretch", view: str = ""
    ):
        super().__init__(env)
        self.discrete, self.skip, self.stack, self.fit = discrete, skip, stack, fit
        self.seen: deque[np.ndarray] = deque(maxlen=stack)
        self.observes_images = _is_image(env.observation_space) and view != "render"
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
        self.seen.clear()
        return self._frame(observation), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        taken = self.first + int(np.argmax(action)) if self.discrete else np.reshape(action, self.shape)
        observation, reward, terminated, truncated, info = self.env.step(taken)
        for _ in range(self.skip - 1):
            if terminated or truncated:
                break
            observation, more, terminated, truncated, info = self.env.step(taken)
            reward = float(reward) + float(more)
        return self._frame(observation), reward, terminated, truncated, info

    def _frame(self, observation: Any) -> np.ndarray:
        frame = self._picture(observation)
        if self.stack == 1:
            return frame
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        self.seen.append(grey)
        missing = FRAME[2] - len(self.seen)
        # The oldest first; of two pictures, or at the start of an episode, the newest or the first one is repeated.
        full = len(self.seen) == self.stack
        return np.stack([*self.seen, *[grey] * missing] if full else [*[self.seen[0]] * missing, *self.seen], axis=-1)

    def _picture(self, observation: Any) -> np.ndarray:
        """One picture in V's size. (64, 64, 3)"""
        image = np.asarray(observation if self.observes_images else self.env.render())
        if image.ndim == 3 and image.shape[0] in (1, 3, 4) and image.shape[-1] not in (1, 3, 4):
            image = np.moveaxis(image, 0, -1)  # channels come first
        if image.ndim == 2 or image.shape[-1] == 1:
            image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=-1)
        image = image[..., :3]
        height, width = image.shape[:2]
        if self.fit == "crop":
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            image = image[top : top + side, left : left + side]
        elif self.fit == "pad":
            side = max(height, width)
            above, before = (side - height) // 2, (side - width) // 2
            image = np.pad(image, ((above, side - height - above), (before, side - width - before), (0, 0)))
        return cv2.resize(np.ascontiguousarray(image), FRAME[:2], interpolation=cv2.INTER_AREA)


def _make(name: str) -> tuple[gymnasium.Env, dict[str, Any]]:
    """Make `gym:ID?key=value&key=value`; a value that is not JSON is text. Returns our own options as well."""
    id_, _, query = name.removeprefix("gym:").partition("?")
    arguments = {key: _value(text) for key, text in parse_qsl(query)}
    options = {key: arguments.pop(key, allowed[0]) for key, allowed in OPTIONS.items()}
    for key, allowed in OPTIONS.items():
        if options[key] not in allowed:
            choices = " or ".join(map(str, allowed)) if len(allowed) < 5 else f"from {allowed[0]} to {allowed[-1]}"
            raise UserError(f"{key} in --game {name} must be {choices}, got {options[key]}")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no screen is needed
    try:
        env = gymnasium.make(id_, render_mode="rgb_array", **arguments)  # renders only on demand
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
    return env, options


def _limit(env: gymnasium.Env) -> int | None:
    """The environment's own limit in its steps: gymnasium's, or one that ALE or MiniGrid keeps itself."""
    if env.spec is None:
        return None
    if env.spec.max_episode_steps:
        return int(env.spec.max_episode_steps)
    if frames := env.spec.kwargs.get("max_num_frames_per_episode"):
        skip = env.spec.kwargs.get("frameskip", 1)
        return int(frames) // (skip if isinstance(skip, int) else min(skip))
    limit = getattr(env.unwrapped, "max_steps", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _is_image(space: gymnasium.Space) -> bool:
    return isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def _value(text: str) -> Any:
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return text
