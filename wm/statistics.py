"""The mean of noisy scores and how much to trust it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Mean(NamedTuple):
    mean: float
    std: float  # of the sample, with n - 1
    error: float  # standard error of the mean


def mean_of(values: Sequence[float] | np.ndarray) -> Mean:
    """Of one value, deviation and error are 0, since nothing is known about them."""
    found = np.asarray(values, np.float64)
    std = float(found.std(ddof=1)) if len(found) > 1 else 0.0
    return Mean(float(found.mean()), std, float(std / np.sqrt(len(found))))
