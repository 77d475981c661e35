"""Fits C to another V and M, so that it acts with them as it did with its own.

Further training changes how V and M represent the same frames, so C loses part of what it has learned, especially how
much gas to give. With its own V and M, its actions are known for every frame of the rollouts, and fitting a linear C of
the new models to them is a least-squares problem. Evolution continues from the result.
"""

import numpy as np
import torch
from torch import Tensor

from wm.errors import UserError
from wm.models.agent import Models
from wm.models.controller import Controller
from wm.runs.shards import DataSet

EPISODES = 24  # the last ones, which are the agent's own; twice as many do not improve the fit
RIDGE = 0.001  # penalty on weight changes, which keeps weights small that the rollouts do not determine


@torch.inference_mode()
def refitted(theta: np.ndarray, before: Models, now: Models, data: DataSet) -> np.ndarray:
    """A theta for `now` that acts in the last of these rollouts as `theta` does with `before`. (N,)"""
    assert not now.controller.layer, "checked with the config"
    if not len(data.lengths):
        raise UserError("there are no rollouts to fit C on: collect some, or remove --evolve.refit")
    inputs, actions = list[Tensor](), list[Tensor]()
    for episode in range(max(0, len(data.lengths) - EPISODES), len(data.lengths)):
        rows = data.read(episode, ["frame", "action"])
        played = torch.from_numpy(rows["frame"].copy()), torch.from_numpy(rows["action"].copy())
        inputs.append(now.inputs_of_c(*played))
        actions.append(before.controller.act(torch.from_numpy(theta)[None], before.inputs_of_c(*played)[None])[0])
    x, y = torch.cat(inputs), torch.cat(actions)  # (T, F), (T, A)
    same = before.controller == now.controller
    start = torch.from_numpy(theta if same else np.zeros(now.controller.size))
    return (start + _least_squares(now.controller, x, y - now.controller.act(start[None], x[None])[0])).numpy()


def _least_squares(controller: Controller, x: Tensor, y: Tensor) -> Tensor:
    """The theta (N,) of a linear C that maps inputs x (T, F) to outputs y (T, A), by ridge regression."""
    ridge = torch.full((x.shape[1],), RIDGE, dtype=x.dtype)
    if controller.bias:
        x = torch.cat((x, torch.ones_like(x[:, :1])), dim=1)
        ridge = torch.cat((ridge, torch.zeros_like(ridge[:1])))
    weights = torch.linalg.solve(x.T @ x / len(x) + ridge.diag(), x.T @ y / len(x)).T  # (A, F or F + 1)
    features = controller.features_size
    return torch.cat((weights[:, :features].flatten(), weights[:, features:].flatten()))
