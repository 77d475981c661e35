import numpy as np
import pytest

from wm.statistics import mean_of


def test_the_deviation_is_the_samples_and_the_error_that_of_the_mean() -> None:
    found = mean_of([4.0, 6.0, 8.0])
    assert found == (6.0, 2.0, pytest.approx(2 / np.sqrt(3)))
    assert (found.mean, found.std, found.error) == found
    values = np.random.default_rng(1).standard_normal(50)
    assert mean_of(values) == pytest.approx((values.mean(), values.std(ddof=1), values.std(ddof=1) / np.sqrt(50)))


def test_one_value_has_no_deviation() -> None:
    assert mean_of([4]) == (4.0, 0.0, 0.0)
    assert all(type(number) is float for number in mean_of(np.array([4], np.float32)))


def test_a_score_that_is_not_a_number_stays_visible() -> None:
    assert np.isnan(mean_of([1.0, np.nan]).mean)
