"""C fitted to another V and M, so that it does with them what it did with those it was made for.

Trained further, V and M say the same in other numbers, and what C made of these is lost, above all how much gas to
give. But with the V and M that it was made for, its actions can be had for every frame of the rollouts, and a linear C
that does the same with others is a matter of least squares. Evolution goes on from there.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wm.errors import UserError
from wm.models.controller import Controller
from wm.models.memory import MDNRNN
from wm.models.vision import Vision
from wm.runs.shards import DataSet

EPISODES = 24  # the last ones, which are the agent's own; with twice as many C is fitted no better
RIDGE = 0.001  # the price of changing weights, which keeps them small where the rollouts say nothing of them
ROWS = 64  # frames encoded at once


@dataclass(frozen=True)
class Seeing:
    """A shape of C, and the V and M that it sees with."""

    controller: Controller
    vision: Vision
    memory: MDNRNN | None

    def seen(self, frames: Tensor, actions: Tensor) -> Tensor:
        """What C sees in an episode (T, 64, 64, 3) in which that was done (T, A). (T, F) float64"""
        z = torch.cat([self.vision.encode(part)[0] for part in frames.split(ROWS)])
        if self.memory is None or self.controller.inputs == "z":
            return z.double()
        state, features = self.memory.initial(1), list[Tensor]()
        not_done = torch.zeros(1) if self.memory.previous_done else None
        for see, do in zip(z[:, None], actions[:, None], strict=True):
            features.append(self.controller.features(see, *state))
            state = self.memory.advance(see, do, state, not_done)
        return torch.cat(features).double()


@torch.inference_mode()
def refitted(theta: np.ndarray, before: Seeing, now: Seeing, data: DataSet) -> np.ndarray:
    """This C of `before` as one of `now`, by its actions in the last of these rollouts. (N,)"""
    assert not now.controller.layer, "checked with the config"
    if not len(data.lengths):
        raise UserError("there are no rollouts to fit C on: collect some, or leave --evolve.refit out")
    seen, did = list[Tensor](), list[Tensor]()
    for episode in range(max(0, len(data.lengths) - EPISODES), len(data.lengths)):
        found = data.read(episode, ["frame", "action"])
        played = torch.from_numpy(found["frame"].copy()), torch.from_numpy(found["action"].copy())
        seen.append(now.seen(*played))
        did.append(before.controller.act(torch.from_numpy(theta)[None], before.seen(*played)[None])[0])
    x, y = torch.cat(seen), torch.cat(did)  # (T, F), (T, A)
    same = before.controller == now.controller
    start = torch.from_numpy(theta if same else np.zeros(now.controller.size))
    return (start + _closest(now.controller, x, y - now.controller.act(start[None], x[None])[0])).numpy()


def _closest(controller: Controller, x: Tensor, y: Tensor) -> Tensor:
    """The small theta (N,) with which a linear C that sees x (T, F) does about y (T, A)."""
    ridge = torch.full((x.shape[1],), RIDGE, dtype=x.dtype)
    if controller.bias:
        x = torch.cat((x, torch.ones_like(x[:, :1])), dim=1)
        ridge = torch.cat((ridge, torch.zeros_like(ridge[:1])))
    found = torch.linalg.solve(x.T @ x / len(x) + ridge.diag(), x.T @ y / len(x)).T  # (A, F or F + 1)
    features = controller.features_size
    return torch.cat((found[:, :features].flatten(), found[:, features:].flatten()))
