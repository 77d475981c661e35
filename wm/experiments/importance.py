"""Which fields of a search mattered: the share of the results' variance that each explains alone.

A numeric field explains what a parabola in it does, any other field what the means of its values do; both are adjusted
for their number of parameters. The p-value is the share of random permutations of the results that explain as much.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm.experiments.spaces import Space
from wm.seeds import generator

PERMUTATIONS = 999
LEAST = 5  # results, below which nothing can be said


@dataclass(frozen=True)
class Importance:
    field: str
    share: float  # of the variance, at least 0
    p: float

    @property
    def matters(self) -> bool:
        return self.p <= 0.05


def importances(spaces: Sequence[Space], values: Sequence[dict[str, Any]], scores: Sequence[float]) -> list[Importance]:
    """The fields by descending share; empty with too few results."""
    y = np.array(scores, float)
    if len(y) < LEAST or not y.std():
        return []
    found = []
    for space in spaces:
        features = _features(space, [one[space.field] for one in values])
        if features.shape[1] < 2 or features.shape[1] >= len(y) - 1:  # constant, or more parameters than results
            continue
        basis = np.linalg.qr(features)[0]  # (N, P)
        share = _explained(basis, y)
        rng = generator("importance", space.field)
        others = [_explained(basis, rng.permutation(y)) for _ in range(PERMUTATIONS)]
        p = (1 + sum(other >= share - 1e-12 for other in others)) / (1 + PERMUTATIONS)
        found.append(Importance(space.field, max(0.0, share), p))
    return sorted(found, key=lambda one: (-one.share, one.p, one.field))


def _features(space: Space, values: Sequence[Any]) -> np.ndarray:
    """Columns that span the functions of this field. (N, P)"""
    distinct = list(dict.fromkeys(values))
    if not space.numeric or len(distinct) <= 3:
        return np.array([[value == other for other in distinct] for value in values], float)
    x = np.array([math.log(value) if space.log and value > 0 else value for value in values], float)
    x = (x - x.mean()) / x.std()
    return np.stack([np.ones_like(x), x, x**2], axis=1)


def _explained(basis: np.ndarray, y: np.ndarray) -> float:
    """Adjusted R squared."""
    count, parameters = basis.shape
    residual = y - basis @ (basis.T @ y)
    total = ((y - y.mean()) ** 2).sum()
    return float(1 - (residual @ residual) / total * (count - 1) / (count - parameters))
