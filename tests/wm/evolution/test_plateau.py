"""The end of an evolution whose validations no longer rise."""

import numpy as np
import pytest

from wm.evolution.plateau import has_settled, rises

RNG = np.random.default_rng(5)
TRACKS = RNG.normal(0, 60, 32)  # some are harder than others, which is no noise


def history(means: list[float], noise: float = 10.0) -> list[dict]:
    """A generation with a validation for each mean, and one without after it."""
    rows: list[dict] = []
    for mean in means:
        rows += [{"validation_scores": (mean + TRACKS + RNG.normal(0, noise, 32)).tolist()}, {"sigma": 0.1}]
    return rows


def test_a_rise_is_measured_against_the_error_of_the_paired_difference():
    before = 800 + TRACKS
    assert rises(before + 5 + RNG.normal(0, 10, 32), before)  # far below the spread of the tracks
    assert not rises(before, before)
    assert not rises(before - 20, before)
    noisy = np.where(np.arange(32) % 2, 100.0, -90.0)  # a mean of 5 with an error of 17
    assert not rises(before + noisy, before)


def test_rising_validations_go_on_and_level_ones_end():
    assert not has_settled(history([600, 650, 700, 720, 740, 760]), 3)
    assert has_settled(history([600, 700, 800, 800, 800, 800, 800, 800]), 3)
    assert has_settled(history([800, 800, 800, 790, 780, 770]), 3)


def test_one_lucky_validation_does_not_end_a_rise():
    """Compared with the best so far, the later ones would look like the end."""
    assert not has_settled(history([700, 720, 800, 760, 780, 800]), 3)


@pytest.mark.parametrize(("count", "validations"), [(5, 3), (1, 1), (0, 2)])
def test_there_must_be_twice_as_many_validations(count, validations):
    assert not has_settled(history([800] * count), validations)


def test_zero_never_ends():
    assert not has_settled(history([800] * 20), 0)
