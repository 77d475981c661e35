"""C, the controller: what the agent does, given what it sees and remembers (Ha & Schmidhuber, 2018, section 2.4).

As small as possible, so that evolution can search all of it: a[t] = W [z[t], h[t]] + b, or, for the paper's
comparison, one hidden layer between. All its numbers are one flat vector theta, and the weights are views of it:
nothing is rounded or copied on the way from CMA-ES to the action. A population is one tensor (P, N).
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Inputs = Literal["z", "zh", "zhc"]


@dataclass(frozen=True)
class Controller:
    """The shape of C. It holds no weights: those are theta, and travel by themselves."""

    inputs: Inputs
    """What C sees: z alone, z and M's h (CarRacing), or also its cell state c (Doom)."""
    z: int
    hidden: int
    """H, the units of M's LSTM; counts only where C sees them."""
    actions: int
    layer: int = 0
    """Units of a hidden layer with tanh; 0 is the linear C. The paper compares with z and 40 units."""
    bias: bool = True

    @property
    def features_size(self) -> int:
        """F, the numbers that C sees."""
        return self.z + self.hidden * (len(self.inputs) - 1)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The weights in theta, in their order: for each layer the matrix, then its bias."""
        sizes = [self.features_size, *([self.layer] if self.layer else []), self.actions]
        shapes: list[tuple[int, ...]] = []
        for i, o in pairwise(sizes):
            shapes += [(o, i), (o,)] if self.bias else [(o, i)]
        return tuple(shapes)

    @property
    def size(self) -> int:
        """N: 867 for the paper's CarRacing, 1,088 for its Doom."""
        return sum(map(math.prod, self.shapes))

    def scale(self, sizes: np.ndarray) -> np.ndarray:
        """How far to move each number of theta, where what C sees has these sizes (F,): powers of two. (N,)"""
        assert sizes.shape == (self.features_size,), (sizes.shape, self.features_size)
        first, *others = self.shapes
        scale = [np.broadcast_to(2.0 ** -np.round(np.log2(np.maximum(sizes, 2.0**-10))), first), *map(np.ones, others)]
        return np.concatenate([part.ravel() for part in scale])

    def directions(self, mean: np.ndarray, components: np.ndarray) -> np.ndarray:
        """Where to move a linear C: one action each by one component (K, F) of what it sees, so that at the mean (F,)
        it stays as it is, and its biases. (A * (K + 1), N), without biases (A * K, N)
        """
        assert not self.layer, "C is not linear"
        matrix, *bias = self.shapes
        moves = np.zeros((self.actions, len(components), *matrix))  # (A, K, A, F)
        for action in range(self.actions):
            moves[action, :, action] = components
        moves = moves.reshape(-1, math.prod(matrix))
        if not bias:
            return moves
        shifts = -np.kron(np.eye(self.actions), components @ mean).T  # (A * K, A)
        alone = np.concatenate([np.zeros((self.actions, math.prod(matrix))), np.eye(self.actions)], axis=1)
        return np.concatenate([np.concatenate([moves, shifts], axis=1), alone])

    def tensor(self, theta: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """CMA's float64 candidates as fp32, rounded here and nowhere else. (P, N)"""
        theta = np.atleast_2d(theta)
        assert theta.ndim == 2, theta.shape
        assert theta.shape[1] == self.size, (theta.shape, self.size)
        return torch.from_numpy(theta.astype(np.float32)).to(device)

    def weights(self, theta: Tensor) -> list[Tensor]:
        """Views of theta (..., N) as matrices (..., out, in) and biases (..., out)."""
        assert theta.shape[-1] == self.size, (theta.shape, self.size)
        parts = theta.split([math.prod(shape) for shape in self.shapes], dim=-1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def features(self, z: Tensor, h: Tensor | None = None, c: Tensor | None = None) -> Tensor:
        """What C sees, in one tensor (..., F)."""
        seen = [x for x in (z, h, c)[: len(self.inputs)] if x is not None]
        assert len(seen) == len(self.inputs), f"C sees {self.inputs}, but M's state is missing"
        return torch.cat(seen, dim=-1)

    def act(self, theta: Tensor, features: Tensor) -> Tensor:
        """Unbounded actions of P candidates in E episodes each: (P, N), (P, E, F) -> (P, E, A).

        Where each row has an owner of its own (episodes end at different times), let every row be a
        candidate with one episode: act(theta[owner], features[:, None]).
        """
        assert features.shape == (len(theta), features.shape[1], self.features_size), (
            theta.shape,
            features.shape,
        )
        x, weights = features, self.weights(theta)
        while weights:
            matrix = weights.pop(0).transpose(1, 2)  # (P, in, out)
            x = torch.baddbmm(weights.pop(0)[:, None], x, matrix) if self.bias else torch.bmm(x, matrix)
            x = torch.tanh(x) if weights else x
        return x
