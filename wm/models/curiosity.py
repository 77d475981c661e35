"""Curiosity (section 5): M's loss on what really comes, its sign flipped, is a reward; C then looks for what M can't
foresee yet.

It is added to the rewards that M learns from. So M foresees its own surprise, and a C evolved in the dream goes for it.
"""

from typing import Any

import numpy as np
import torch

from wm.models.agent import Agent
from wm.models.memory import nll
from wm.models.vision import draw
from wm.seeds import derive


class CuriousAgent(Agent):
    """An agent that notices how surprised its M is, beside how surprised it usually is: its held-out NLL."""

    def __init__(self, *parts: Any, weight: float, usual: float, seed: int = 0, **more: Any):
        super().__init__(*parts, seed=seed, **more)
        assert self.memory is not None, "no M to surprise"
        self.weight, self.usual = weight, usual
        self.doubt = torch.Generator().manual_seed(derive(seed, "surprise"))
        self.bonus = np.zeros(len(self.z))  # (E,), for the step that led to what is seen now

    @torch.inference_mode()
    def act(self, frames: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        assert self.memory is not None
        assert self.state is not None
        rows = torch.from_numpy(episodes).to(self.device)  # (B,)
        expected = self.memory.predict(self.state.h[rows])  # after the last step's z and a
        actions = super().act(frames, episodes)
        z = self.z[rows]
        if self.latent == "mu":  # M learns from z drawn around it, and the NLL to compare with is of such
            noise = torch.randn(self.z.shape, generator=self.doubt).to(self.device)
            z = draw(z, self.logvar[rows], noise[rows])
        surprise = nll(expected, z).mean(dim=-1).double().cpu().numpy()  # (B,), a dimension
        self.bonus[episodes] = self.weight * (surprise - self.usual)
        return actions

    def __str__(self) -> str:
        return f"the game's + {self.weight:g} x (M's NLL a dimension - {self.usual:.4f})"
