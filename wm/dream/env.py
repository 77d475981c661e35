"""The dream as a gymnasium environment, for training other agents inside M.

    world = World(memory, starts, Rules(steps=1000, reward="head", done="never"), game.squash)
    gymnasium.make_vec("wm.dream.env:wm/Dream-v0", num_envs=64, world=world)  # 64 dreams in one batch
    gymnasium.make("wm.dream.env:wm/Dream-v0", world=world)  # a single dream

With `render_mode="rgb_array"`, `render()` returns the dream's frames as V decodes them if `vision=agent.vision` is
given, otherwise z as grey squares.

Observations are C's inputs: z, then M's h and c, as `sees` selects. Actions are in [-1, 1]: the tanh of C's output,
which the game's squash maps to its actions.
"""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from wm.dream.world import World
from wm.envs import FRAME
from wm.models.controller import Controller, Inputs
from wm.models.vision import Vision

ID = "wm/Dream-v0"
RENDERING: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}
_EDGE = 1 - 2**-20  # atanh of 1 is infinite


class DreamVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Dreams that step together. Ended dreams restart, by default in the following step (gymnasium's NEXT_STEP)."""

    def __init__(
        self,
        num_envs: int = 1,
        *,
        world: World,
        sees: Inputs = "zh",
        autoreset: AutoresetMode = AutoresetMode.NEXT_STEP,
        vision: Vision | None = None,
        render_mode: str | None = None,
    ):
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be rgb_array or None, got {render_mode}")
        self.vision, self.render_mode = vision, render_mode
        if autoreset is AutoresetMode.DISABLED:
            raise ValueError("autoreset must be NEXT_STEP or SAME_STEP: dreams restart by themselves")
        self.metadata = {**RENDERING, "autoreset_mode": autoreset}
        self.num_envs, self.world = num_envs, world
        memory = world.memory
        self.size = Controller(sees, memory.z, memory.hidden, memory.actions).features_size
        self.single_observation_space = Box(-np.inf, np.inf, (self.size,), np.float32)
        self.single_action_space = Box(-1, 1, (memory.actions,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.same_step = autoreset is AutoresetMode.SAME_STEP
        self.batch = world.batch(num_envs)
        self.age, self.over = np.zeros(num_envs, int), np.zeros(num_envs, bool)
        self.earned = np.zeros(num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._begin(np.ones(self.num_envs, bool))
        self.over[:] = False
        return self._observations(), {}

    @torch.inference_mode()
    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        world, s = self.world, self.batch
        u = torch.as_tensor(actions, dtype=torch.float32, device=world.device)  # (B, A)
        assert u.shape == s.a.shape, (u.shape, s.a.shape)
        s.a.copy_(world.squash(torch.atanh(u.clamp(-_EDGE, _EDGE))))
        world.step(s, torch.from_numpy(world.noise(self.np_random, self.num_envs)).to(world.device))
        self.age += 1
        reward = s.reward.double().cpu().numpy()  # a copy, like all returned arrays
        self.earned += reward + world.rules.step_price
        terminated, truncated = s.done.cpu().numpy().copy(), self.age >= world.rules.steps
        if world.rules.lap:
            terminated |= self.earned >= world.rules.lap
        infos: dict[str, Any] = {}
        if self.same_step:
            over = terminated | truncated
            if over.any():
                final = np.full(self.num_envs, None)  # objects, None for dreams that continue, as in gymnasium
                for index, last in zip(np.flatnonzero(over), self._observations()[over], strict=True):
                    final[index] = last
                infos = {"final_obs": final, "_final_obs": over}
        else:
            over = self.over
            reward[over], terminated[over], truncated[over] = 0, False, False
            self.over = terminated | truncated
        self._begin(over)
        return self._observations(), reward, terminated, truncated, infos

    @torch.inference_mode()
    def render(self) -> tuple[np.ndarray, ...] | None:
        """One frame for each dream, (64, 64, 3) uint8."""
        if self.render_mode is None:
            return None
        z = self.batch.z.float()  # (B, Z)
        if self.vision is None:
            return tuple(_squares(one) for one in z.cpu().numpy())
        frames = self.vision.decode(z.to(next(self.vision.parameters()).device))  # (B, 64, 64, 3)
        return tuple((frames.clamp(0, 1) * 255).round().byte().cpu().numpy())

    @torch.inference_mode()
    def _begin(self, which: np.ndarray) -> None:
        """Start new episodes at these indices."""
        s, device = self.batch, self.world.device
        for index in np.flatnonzero(which):
            s.x[index] = 0
            s.state[index] = torch.from_numpy(self.world.begin(self.np_random)).to(device)
        self.age[which], self.earned[which] = 0, 0

    def _observations(self) -> np.ndarray:
        return self.batch.state[:, : self.size].cpu().numpy().copy()  # (B, F)


def _squares(z: np.ndarray) -> np.ndarray:
    """z (Z,) as squares from black (-3) to white (3)."""
    side = int(np.ceil(np.sqrt(len(z))))
    grey = np.zeros(side * side, np.uint8)
    grey[: len(z)] = ((z.clip(-3, 3) + 3) / 6 * 255).round()
    picture = np.zeros(FRAME, np.uint8)
    large = np.kron(grey.reshape(side, side), np.ones((FRAME[0] // side, FRAME[1] // side), np.uint8))
    picture[: large.shape[0], : large.shape[1]] = large[..., None]
    return picture


class DreamEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A single dream."""

    metadata = RENDERING

    def __init__(
        self, *, world: World, sees: Inputs = "zh", vision: Vision | None = None, render_mode: str | None = None
    ):
        self.dreams = DreamVectorEnv(1, world=world, sees=sees, vision=vision, render_mode=render_mode)
        self.render_mode = render_mode
        self.observation_space = self.dreams.single_observation_space
        self.action_space = self.dreams.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.dreams.np_random = self.np_random  # a single source of randomness
        observation, infos = self.dreams.reset()
        return observation[0], infos

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, infos = self.dreams.step(np.asarray(action)[None])
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), infos

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The current frame, (64, 64, 3) uint8."""
        frames = self.dreams.render()
        return frames[0] if frames else None


gymnasium.register(id=ID, entry_point="wm.dream.env:DreamEnv", vector_entry_point="wm.dream.env:DreamVectorEnv")
