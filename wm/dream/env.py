"""The dream as a gymnasium environment, so that others can train their own agents inside M.

    world = World(memory, starts, Rules(steps=1000, reward="head", done="never"), game.squash)
    gymnasium.make_vec("wm.dream.env:wm/Dream-v0", num_envs=64, world=world)  # 64 dreams in one batch
    gymnasium.make("wm.dream.env:wm/Dream-v0", world=world)  # one of them

What is seen is what C sees: z, then M's h, then its c if asked for. An action is a box from -1 to 1: the tanh of
what C would put out, which the game's own squash then maps to its actions.
"""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from wm.dream.world import World
from wm.models.controller import Controller, Inputs

ID = "wm/Dream-v0"
_EDGE = 1 - 2**-20  # atanh of 1 is infinite


class DreamVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Dreams that step together. One that ends begins anew, by default in the step after (gymnasium's NEXT_STEP)."""

    def __init__(
        self,
        num_envs: int = 1,
        *,
        world: World,
        sees: Inputs = "zh",
        autoreset: AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ):
        if render_mode is not None:
            raise ValueError("a dream has no frames to render: decode its z with V")
        if autoreset is AutoresetMode.DISABLED:
            raise ValueError("dreams begin anew by themselves: autoreset is NEXT_STEP or SAME_STEP")
        self.metadata = {"render_modes": [], "autoreset_mode": autoreset}
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
        return self._seen(), {}

    @torch.inference_mode()
    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        world, s = self.world, self.batch
        u = torch.as_tensor(actions, dtype=torch.float32, device=world.device)  # (B, A)
        assert u.shape == s.a.shape, (u.shape, s.a.shape)
        s.a.copy_(world.squash(torch.atanh(u.clamp(-_EDGE, _EDGE))))
        world.step(s, torch.from_numpy(world.noise(self.np_random, self.num_envs)).to(world.device))
        self.age += 1
        reward = s.reward.double().cpu().numpy()  # a copy, like all that is handed out
        self.earned += reward + world.rules.step_price
        terminated, truncated = s.done.cpu().numpy().copy(), self.age >= world.rules.steps
        if world.rules.lap:
            terminated |= self.earned >= world.rules.lap
        infos: dict[str, Any] = {}
        if self.same_step:
            over = terminated | truncated
            if over.any():
                final = np.full(self.num_envs, None)  # objects, None where nothing ended, as gymnasium has it
                for place, last in zip(np.flatnonzero(over), self._seen()[over], strict=True):
                    final[place] = last
                infos = {"final_obs": final, "_final_obs": over}
        else:
            over = self.over
            reward[over], terminated[over], truncated[over] = 0, False, False
            self.over = terminated | truncated
        self._begin(over)
        return self._seen(), reward, terminated, truncated, infos

    @torch.inference_mode()
    def _begin(self, which: np.ndarray) -> None:
        """New episodes where `which` says so."""
        s, device = self.batch, self.world.device
        for place in np.flatnonzero(which):
            s.x[place] = 0
            s.state[place] = torch.from_numpy(self.world.begin(self.np_random)).to(device)
        self.age[which], self.earned[which] = 0, 0

    def _seen(self) -> np.ndarray:
        return self.batch.state[:, : self.size].cpu().numpy().copy()  # (B, F)


class DreamEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One dream."""

    metadata = {"render_modes": []}  # noqa: RUF012  (gymnasium's own convention)

    def __init__(self, *, world: World, sees: Inputs = "zh", render_mode: str | None = None):
        self.dreams = DreamVectorEnv(1, world=world, sees=sees, render_mode=render_mode)
        self.observation_space = self.dreams.single_observation_space
        self.action_space = self.dreams.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.dreams.np_random = self.np_random  # one source of randomness
        seen, infos = self.dreams.reset()
        return seen[0], infos

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, infos = self.dreams.step(np.asarray(action)[None])
        return seen[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), infos


gymnasium.register(id=ID, entry_point="wm.dream.env:DreamEnv", vector_entry_point="wm.dream.env:DreamVectorEnv")
