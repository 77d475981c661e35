"""The agent: V, M and C together, driving a batch of episodes of the real game (section 2.5, the paper's rollout)."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from wm.models.controller import Controller
from wm.models.memory import MDNRNN, State
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
    """A policy for `wm.rollout.play`: one candidate of the population in each episode.

    C sees h from before M takes this step in, so h[t] knows z[t-1] and a[t-1]; it starts with zeros. All noise
    is drawn for every episode at every step, so that it doesn't depend on who is still alive: what happens in
    a batch is a pure function of the arguments.

    Who watches reads `z`, `a` (what was seen and done last; `logvar` is V's doubt) and `state` (what M made of it:
    `memory.predict(state.h)` is what it expects next), and `features`, what C saw of both, all with one row an episode.
    """

    def __init__(
        self,
        vision: Vision,
        memory: MDNRNN | None,
        controller: Controller,
        theta: np.ndarray,  # (P, N)
        owner: Sequence[int] | np.ndarray,  # (E,), which candidate plays which episode
        squash: Callable[[Tensor], Tensor],  # the game's
        *,
        latent: Literal["mu", "z"] = "mu",  # see the mean, or draw from N(mu, exp(logvar)) as the paper does
        seed: int = 0,  # of everything that is drawn
        noise: Sequence[float] | None = None,  # (E,), deviation of what is added to C's output, before the squash
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,  # of V's convolutions; M and C stay fp32
    ):
        assert memory is not None or controller.inputs == "z", f"C sees {controller.inputs}, so it needs an M"
        self.vision, self.memory, self.controller, self.squash = vision, memory, controller, squash
        self.latent = latent
        self.device, self.dtype = torch.device(device), dtype
        prepared = self.device.type == "cpu" and dtype == torch.float32
        self.encode = vision.encoding() if prepared else vision.encode
        self.generator = torch.Generator().manual_seed(seed)
        owners = torch.as_tensor(np.asarray(owner), device=self.device)
        with torch.inference_mode():
            self.noise = None if noise is None else torch.tensor(noise, device=self.device)[:, None]  # (E, 1)
            self.theta = controller.tensor(theta, self.device)[owners]  # (E, N)
            self.z = torch.zeros(len(owners), controller.z, device=self.device)
            self.logvar = torch.zeros_like(self.z)
            self.a = torch.zeros(len(owners), controller.actions, device=self.device)
            self.features = torch.zeros(len(owners), controller.features_size, device=self.device)
            self.state = memory.initial(len(owners), self.device) if memory else None

    @torch.inference_mode()
    def act(self, frames: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """Frames of the live episodes (B, 64, 64, 3), their places in the batch (B,) -> actions (B, A)."""
        live = len(episodes)
        assert frames.shape == (live, 64, 64, 3), (frames.shape, live)
        padded = np.arange(padded_size(live))
        padded[live:] = 0  # the first episode once more; what comes of it is dropped
        rows = torch.from_numpy(episodes[padded]).to(self.device)  # (R,)
        kept = rows[:live]

        mu, logvar = self._encode(torch.from_numpy(frames[padded]).to(self.device))  # (R, Z)
        z = draw(mu, logvar, self._normal(self.z)[rows]) if self.latent == "z" else mu
        h, c = (x[rows] for x in self.state) if self.state else (None, None)  # (R, H)
        features = self.controller.features(z, h, c)  # (R, F)
        raw = self.controller.act(self.theta[rows], features[:, None])[:, 0]  # (R, A)
        if self.noise is not None:
            raw = raw + (self.noise * self._normal(self.a))[rows]
        a = self.squash(raw)  # (R, A)

        self.z[kept], self.logvar[kept], self.a[kept] = z[:live], logvar[:live], a[:live]
        self.features[kept] = features[:live]
        if self.memory is not None and self.state is not None and h is not None and c is not None:
            not_done = torch.zeros(len(rows), device=self.device) if self.memory.previous_done else None
            state = self.memory.advance(z, a, State(h, c), not_done)
            for whole, part in zip(self.state, state, strict=True):
                whole[kept] = part[:live]
        return a[:live].cpu().numpy()

    def _encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.encode(frames)

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator).to(self.device)  # (E, ...)


@dataclass(frozen=True)
class Models:
    """V, M and the shape of C, which together with a theta make an agent."""

    vision: Vision
    memory: MDNRNN | None
    controller: Controller
    latent: Literal["mu", "z"] = "mu"

    def agent(
        self, theta: np.ndarray, owner: Sequence[int] | np.ndarray, squash: Callable[[Tensor], Tensor], **options: Any
    ) -> Agent:
        return Agent(self.vision, self.memory, self.controller, theta, owner, squash, latent=self.latent, **options)

    def without_decoder(self) -> "Models":
        """A sixth of the size: what workers that only play need."""
        return replace(self, vision=self.vision.encoder_only())

    def inputs_of_c(self, frames: Tensor, actions: Tensor) -> Tensor:
        """C's inputs in an episode with these frames (T, 64, 64, 3) and actions (T, A). (T, F) float64"""
        z = encode_in_batches(self.vision.encode, frames)[0]
        if self.memory is None or self.controller.inputs == "z":
            return z.double()
        state, features = self.memory.initial(1), list[Tensor]()
        not_done = torch.zeros(1) if self.memory.previous_done else None
        for seen, done in zip(z[:, None], actions[:, None], strict=True):
            features.append(self.controller.features(seen, *state))
            state = self.memory.advance(seen, done, state, not_done)
        return torch.cat(features).double()
