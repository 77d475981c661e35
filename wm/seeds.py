"""Where randomness comes from: every seed is a pure function of what it is for.

Episodes of training, validation and test never share a seed: each has a range of its own.
"""

import hashlib

import numpy as np

_RANGE = 2**29
TEST, VALIDATION, TRAINING = 0, _RANGE, 2 * _RANGE  # where each range begins; training has two


def derive(*parts: int | str) -> int:
    """A seed from (run's seed, stage, unit, ...): 63 bits, never 0."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1 or 1


def generator(*parts: int | str) -> np.random.Generator:
    return np.random.default_rng(derive(*parts))


def training_episode(*parts: int | str) -> int:
    """The game's seed for a training episode."""
    return TRAINING + derive(*parts) % (2 * _RANGE)


def validation_episode(index: int) -> int:
    """The same for every run, so that their curves compare."""
    assert 0 <= index < _RANGE, index
    return VALIDATION + index


def test_episode(index: int) -> int:
    """The same for every run; drawn by `score` alone."""
    assert 0 <= index < _RANGE, index
    return TEST + index
