"""The end of an evolution: its validations no longer rise, or have reached the target."""

import pytest

from wm.evolution.validations import has_reached, has_settled


def history(means: list[float]) -> list[dict]:
    """A generation with a validation for each mean, and one without after it."""
    rows: list[dict] = []
    for mean in means:
        rows += [{"validation": mean}, {"sigma": 0.1}]
    return rows


def test_rising_validations_go_on_and_level_ones_end():
    assert not has_settled(history([600, 650, 700, 720, 740, 760]), 3)
    assert has_settled(history([600, 700, 800, 800, 800, 800, 800, 800]), 3)
    assert has_settled(history([800, 800, 800, 790, 780, 770]), 3)


def test_a_rise_within_its_error_goes_on():
    assert not has_settled(history([790, 810, 800, 795, 812, 799]), 3)


def test_one_lucky_validation_does_not_end_a_rise():
    """Compared with the best so far, the later ones would look like the end."""
    assert not has_settled(history([700, 720, 800, 760, 780, 800]), 3)


@pytest.mark.parametrize(("count", "validations"), [(5, 3), (1, 1), (0, 2)])
def test_there_must_be_twice_as_many_validations(count, validations):
    assert not has_settled(history([800] * count), validations)


def test_zero_never_ends():
    assert not has_settled(history([800] * 20), 0)


def test_a_target_is_reached_by_two_validations_not_by_a_lucky_one():
    assert not has_reached(history([500, 750]), 700)
    assert not has_reached(history([900]), 700)
    assert has_reached(history([500, 690, 710]), 700)
    assert not has_reached(history([800, 800]), 0)
