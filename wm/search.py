"""The coordinates in which C is searched: its weights, or those of the principal components of what it sees.

Most of the numbers that C sees hardly change, or change together, so that most steps among its weights are noise. On k
principal components, each scaled to a deviation of 1, the same linear C has (k + 1) A weights, and a step in one of
them moves the action as far as in any other. What comes out is an ordinary theta: W = V B, b = b' - V B m.
"""

from dataclasses import dataclass

import numpy as np

from wm.controller import Controller
from wm.mistakes import Mistake

SAMPLE = 4096  # frames that the components are taken from


@dataclass(frozen=True)
class Weights:
    """C's own weights: a point is theta."""

    size: int  # n, the numbers of a point

    def thetas(self, points: np.ndarray) -> np.ndarray:
        """(..., n) -> (..., N)"""
        return points

    def point(self, theta: np.ndarray) -> np.ndarray:
        """(N,) -> (n,)"""
        return theta


@dataclass(frozen=True)
class Components:
    """A linear C on k principal components x' = B (x - m) of what it sees."""

    controller: Controller
    center: np.ndarray  # m (F,); zeros where C has no bias to make up for it
    basis: np.ndarray  # B (k, F)
    back: np.ndarray  # (F, k), from components to what is seen: x = m + back x', but for what was left out

    @property
    def size(self) -> int:
        return self.controller.actions * (len(self.basis) + self.controller.bias)

    def thetas(self, points: np.ndarray) -> np.ndarray:
        """(..., n) -> (..., N)"""
        matrix, bias = self._parts(points, len(self.basis))  # (..., A, k), (..., A)
        matrix = matrix @ self.basis  # (..., A, F)
        return _flat(matrix, bias - matrix @ self.center if self.controller.bias else None)

    def point(self, theta: np.ndarray) -> np.ndarray:
        """The point whose C acts most like this one: what it does with the components left out is lost. (N,) -> (n,)"""
        matrix, bias = self._parts(theta, len(self.center))
        return _flat(matrix @ self.back, bias + matrix @ self.center if self.controller.bias else None)

    def _parts(self, flat: np.ndarray, inputs: int) -> tuple[np.ndarray, np.ndarray]:
        split = self.controller.actions * inputs
        return flat[..., :split].reshape(*flat.shape[:-1], self.controller.actions, inputs), flat[..., split:]


def _flat(matrix: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    rows = matrix.reshape(*matrix.shape[:-2], -1)
    return rows if bias is None else np.concatenate((rows, bias), axis=-1)


def components_of(controller: Controller, seen: np.ndarray, count: int) -> Components:
    """The `count` principal components of what C sees. seen: (S, F)"""
    if controller.layer:
        raise Mistake("--evolve.components are for a linear C: say --controller.layer 0, or leave them out")
    if count > min(seen.shape):
        raise Mistake(f"--evolve.components {count} are more than there are: say {min(seen.shape)} or fewer")
    seen = seen.astype(np.float64)
    center = seen.mean(axis=0) if controller.bias else np.zeros(seen.shape[1])
    values, vectors = np.linalg.eigh((seen - center).T @ (seen - center) / len(seen))  # ascending
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]  # (k,), (F, k)
    deviations = np.sqrt(np.maximum(values, 1e-12))
    return Components(controller, center, (vectors / deviations).T.copy(), vectors * deviations)
