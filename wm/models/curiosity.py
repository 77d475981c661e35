"""Curiosity (section 5): M's loss on the real next step as a reward, so that C seeks what M cannot predict yet.

The bonus is added to the rewards that M learns from, so M predicts its own surprise and a C evolved in the dream seeks
it.
"""

from typing import Any

import numpy as np
import torch

from wm.models.agent import Agent
from wm.models.memory import nll
from wm.models.vision import draw
from wm.seeds import derive


class CuriousAgent(Agent):
    """An agent that measures M's surprise: its NLL of the next z above `usual`, its held-out NLL."""

    def __init__(self, *parts: Any, weight: float, usual: float, seed: int = 0, **more: Any):
        super().__init__(*parts, seed=seed, **more)
        assert self.memory is not None, "no M to surprise"
        self.weight, self.usual = weight, usual
        self.sample_generator = torch.Generator().manual_seed(derive(seed, "surprise"))
        self.bonus = np.zeros(len(self.z))  # (E,), for the step that led to the current frame

    @torch.inference_mode()
    def act(self, frames: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        assert self.memory is not None
        assert self.state is not None
        rows = torch.from_numpy(episodes).to(self.device)  # (B,)
        prediction = self.memory.predict(self.state.h[rows])  # from the last step's z and a
        actions = super().act(frames, episodes)
        z = self.z[rows]
        if self.latent == "mu":  # M is trained on samples, and `usual` is the NLL of samples
            noise = torch.randn(self.z.shape, generator=self.sample_generator).to(self.device)
            z = draw(z, self.logvar[rows], noise[rows])
        surprise = nll(prediction, z).mean(dim=-1).double().cpu().numpy()  # (B,), per dimension of z
        self.bonus[episodes] = self.weight * (surprise - self.usual)
        return actions

    def __str__(self) -> str:
        return f"the game's + {self.weight:g} x (M's NLL a dimension - {self.usual:.4f})"
