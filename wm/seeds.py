"""Seeds: each is a pure function of its purpose.

The episodes of training, validation and test have separate ranges of seeds.
"""

import hashlib

import numpy as np

_RANGE = 2**29
TEST, VALIDATION, TRAINING = 0, _RANGE, 2 * _RANGE  # start of each range; training has two ranges


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
    """The same for all runs, so that their curves can be compared."""
    assert 0 <= index < _RANGE, index
    return VALIDATION + index


def test_episode(index: int) -> int:
    """The same for all runs; used by the stage `score` only."""
    assert 0 <= index < _RANGE, index
    return TEST + index
