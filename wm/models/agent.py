"""The agent of V, M and C in a batch of episodes of the real game (section 2.5, the paper's rollout)."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from wm.models.controller import Controller
from wm.models.memory import MDNRNN, State
from wm.models.precision import dtype_of
from wm.models.vision import Vision, draw, encode_in_batches

_SIZES = sorted([1, 2, 4] + [size << power for power in range(18) for size in (8, 12)])


def padded_size(rows: int) -> int:
    """The batch size that this many rows are padded to.

    Episodes end and leave the batch. With a few sizes (1, 2, 4, 8, 12, 16, 24, ...), kernels, buffers and graphs can
    be reused.
    """
    assert 0 < rows <= _SIZES[-1], rows
    return _SIZES[bisect_left(_SIZES, rows)]


class Agent:
    """A policy for `wm.envs.rollout.play`, with one candidate of the population in each episode.

    C's input h[t] is M's state before step t, so it depends on z[t-1] and a[t-1]; it starts at zero. Noise is drawn for
    all episodes at every step, so it does not depend on which episodes are still live: the results of a batch are a
    pure function of the arguments.

    After `act`, these have one row per episode: `z` and `logvar` from V, the action `a`, C's inputs `features`, and M's
    new `state` (`memory.predict(state.h)` is its prediction of the next step).
    """

    def __init__(
        self,
        vision: Vision,
        memory: MDNRNN | None,
        controller: Controller,
        theta: np.ndarray,  # (P, N)
        owner: Sequence[int] | np.ndarray,  # (E,), the candidate that plays each episode
        squash: Callable[[Tensor], Tensor],  # the game's
        *,
        latent: Literal["mu", "z"] = "mu",  # the mean, or a sample from N(mu, exp(logvar)) as in the paper
        seed: int = 0,  # of all noise
        noise: Sequence[float] | None = None,  # (E,), deviation of the noise added to C's output before the squash
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,  # of V's convolutions; M and C use fp32
    ):
        assert memory is not None or controller.inputs == "z", f"a C with inputs {controller.inputs} needs an M"
        self.vision, self.memory, self.controller, self.squash = vision, memory, controller, squash
        self.latent = latent
        self.device = torch.device(device)
        self.encode = vision.encoding(dtype)
        self.generator = torch.Generator().manual_seed(seed)
        owners = torch.as_tensor(np.asarray(owner), device=self.device)
        with torch.inference_mode():
            self.noise = None if noise is None else torch.tensor(noise, device=self.device)[:, None]  # (E, 1)
            self.theta = controller.tensor(theta, self.device)[owners]  # (E, N)
            self.z = torch.zeros(len(owners), controller.z, device=self.device)
            self.logvar = torch.zeros_like(self.z)
            self.raw = torch.zeros(len(owners), controller.outputs, device=self.device)
            self.a = torch.zeros_like(squash(self.raw))
            self.features = torch.zeros(len(owners), controller.features_size, device=self.device)
            self.state = memory.initial(len(owners), self.device) if memory else None

    @torch.inference_mode()
    def act(self, frames: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """Frames (B, 64, 64, 3) of the live episodes and their indices in the batch (B,) -> actions (B, A)."""
        live = len(episodes)
        assert frames.shape == (live, 64, 64, 3), (frames.shape, live)
        padded = np.arange(padded_size(live))
        padded[live:] = 0  # padding repeats the first episode; its results are dropped
        rows = torch.from_numpy(episodes[padded]).to(self.device)  # (R,)
        kept = rows[:live]

        mu, logvar = self.encode(torch.from_numpy(frames[padded]).to(self.device))  # (R, Z)
        z = draw(mu, logvar, self._normal(self.z)[rows]) if self.latent == "z" else mu
        h, c = (x[rows] for x in self.state) if self.state else (None, None)  # (R, H)
        features = self.controller.features(z, h, c)  # (R, F)
        raw = self.controller.act(self.theta[rows], features[:, None])[:, 0]  # (R, O)
        if self.noise is not None:
            raw = raw + (self.noise * self._normal(self.raw))[rows]
        a = self.squash(raw)  # (R, A)

        self.z[kept], self.logvar[kept], self.a[kept] = z[:live], logvar[:live], a[:live]
        self.features[kept] = features[:live]
        if self.memory is not None and self.state is not None and h is not None and c is not None:
            not_done = torch.zeros(len(rows), device=self.device) if self.memory.previous_done else None
            state = self.memory.advance(z, a, State(h, c), not_done)
            for stored, new in zip(self.state, state, strict=True):
                stored[kept] = new[:live]
        return a[:live].cpu().numpy()

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator).to(self.device)  # (E, ...)


@dataclass(frozen=True)
class Models:
    """V, M and the shape of C, which together with a theta make an agent."""

    vision: Vision
    memory: MDNRNN | None
    controller: Controller
    latent: Literal["mu", "z"] = "mu"
    precision: str = "float32"  # of V's convolutions, and of M's and C's products in dreams

    def agent(
        self, theta: np.ndarray, owner: Sequence[int] | np.ndarray, squash: Callable[[Tensor], Tensor], **options: Any
    ) -> Agent:
        options = {"latent": self.latent, "dtype": dtype_of(self.precision), **options}
        return Agent(self.vision, self.memory, self.controller, theta, owner, squash, **options)

    def without_decoder(self) -> "Models":
        """A copy for workers that only play: a sixth of the size."""
        return replace(self, vision=self.vision.encoder_only())

    def inputs_of_c(self, frames: Tensor, actions: Tensor) -> Tensor:
        """C's inputs in an episode with these frames (T, 64, 64, 3) and actions (T, A). (T, F) float64"""
        z = encode_in_batches(self.vision.encode, frames)[0]
        if self.memory is None or self.controller.inputs == "z":
            return z.double()
        state, features = self.memory.initial(1), list[Tensor]()
        not_done = torch.zeros(1) if self.memory.previous_done else None
        for z_now, a in zip(z[:, None], actions[:, None], strict=True):
            features.append(self.controller.features(z_now, *state))
            state = self.memory.advance(z_now, a, state, not_done)
        return torch.cat(features).double()
