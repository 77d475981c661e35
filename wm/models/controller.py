"""C, the controller: maps z and h to an action (Ha & Schmidhuber, 2018, section 2.4).

It is small, so that evolution can search all of its parameters: a[t] = W [z[t], h[t]] + b, or, for the paper's
comparison, with one hidden layer. All parameters form one flat vector theta; the weights are views of it. A population
is one tensor (P, N).
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
    """The shape of C. It holds no weights: theta is passed separately."""

    inputs: Inputs
    """C's inputs: z only, z and M's h (CarRacing), or also M's cell state c (Doom)."""
    z: int
    hidden: int
    """H, the units of M's LSTM; unused if C only sees z."""
    outputs: int
    """Numbers from which the game makes an action."""
    layer: int = 0
    """Units of a hidden tanh layer; 0 is the linear C. The paper's comparison has inputs z and 40 units."""
    bias: bool = True

    @property
    def features_size(self) -> int:
        """F, the number of C's inputs."""
        return self.z + self.hidden * (len(self.inputs) - 1)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the weights in theta, in order: for each layer the matrix, then its bias."""
        sizes = [self.features_size, *([self.layer] if self.layer else []), self.outputs]
        shapes: list[tuple[int, ...]] = []
        for inputs, outputs in pairwise(sizes):
            shapes += [(outputs, inputs), (outputs,)] if self.bias else [(outputs, inputs)]
        return tuple(shapes)

    @property
    def size(self) -> int:
        """N: 867 for the paper's CarRacing, 1,088 for its Doom."""
        return sum(map(math.prod, self.shapes))

    def scale(self, sizes: np.ndarray) -> np.ndarray:
        """Step sizes for theta that give inputs of these magnitudes (F,) the same weight, as powers of two. (N,)"""
        assert sizes.shape == (self.features_size,), (sizes.shape, self.features_size)
        first, *others = self.shapes
        scale = [np.broadcast_to(2.0 ** -np.round(np.log2(np.maximum(sizes, 2.0**-10))), first), *map(np.ones, others)]
        return np.concatenate([part.ravel() for part in scale])

    def directions(self, mean: np.ndarray, components: np.ndarray) -> np.ndarray:
        """Search directions of a linear C: each moves one output along one component (K, F) of the inputs and leaves
        the output at their mean (F,) unchanged; one more per output moves its bias. (O * (K + 1), N), without biases
        (O * K, N)
        """
        assert not self.layer, "C is not linear"
        matrix, *bias = self.shapes
        moves = np.zeros((self.outputs, len(components), *matrix))  # (O, K, O, F)
        for output in range(self.outputs):
            moves[output, :, output] = components
        moves = moves.reshape(-1, math.prod(matrix))
        if not bias:
            return moves
        shifts = -np.kron(np.eye(self.outputs), components @ mean).T  # (O * K, O)
        biases = np.concatenate([np.zeros((self.outputs, math.prod(matrix))), np.eye(self.outputs)], axis=1)
        return np.concatenate([np.concatenate([moves, shifts], axis=1), biases])

    def tensor(self, theta: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """CMA-ES's float64 candidates rounded to fp32. (P, N)"""
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
        """C's inputs in one tensor (..., F)."""
        parts = [x for x in (z, h, c)[: len(self.inputs)] if x is not None]
        assert len(parts) == len(self.inputs), f"C has inputs {self.inputs}, but M's state is missing"
        return torch.cat(parts, dim=-1)

    def act(self, theta: Tensor, features: Tensor) -> Tensor:
        """Unbounded actions of P candidates in E episodes each: (P, N), (P, E, F) -> (P, E, A).

        If episodes end at different times, use one row per live episode instead: act(theta[owner], features[:, None]).
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
