"""Tracks dealt out: fair in number, and taken out of the score again."""

import numpy as np
import pytest

from wm.deal import deal, scores


@pytest.mark.parametrize(("population", "episodes", "tracks"), [(32, 2, 8), (16, 4, 16), (5, 3, 7), (4, 2, 2)])
def test_every_track_is_played_about_as_often(population: int, episodes: int, tracks: int) -> None:
    dealt = deal(population, episodes, tracks, np.random.default_rng(1))
    assert dealt.shape == (population, episodes)
    assert all(len(set(row)) == episodes for row in dealt)
    played = np.bincount(dealt.ravel(), minlength=tracks)
    assert played.max() - played.min() <= 1
    again = deal(population, episodes, tracks, np.random.default_rng(1))
    assert np.array_equal(dealt, again)


def test_an_easy_track_is_no_merit() -> None:
    rng = np.random.default_rng(2)
    dealt = deal(32, 2, 8, rng)
    skill, ease = rng.normal(0, 50, 32), rng.normal(600, 200, 8)
    found = scores(skill[:, None] + ease[dealt], dealt)
    assert found == pytest.approx(skill + ease.mean())
    mean = (skill[:, None] + ease[dealt]).mean(axis=1)
    assert np.corrcoef(mean, skill)[0, 1] < 0.9


def test_the_same_tracks_for_all_give_the_mean() -> None:
    returns = np.random.default_rng(3).normal(500, 100, (6, 3))
    assert scores(returns, np.tile(np.arange(3), (6, 1))) == pytest.approx(returns.mean(axis=1))


def test_a_return_that_is_no_number_spoils_one_score() -> None:
    dealt = deal(8, 2, 4, np.random.default_rng(4))
    returns = np.arange(8.0)[:, None] + 10 * dealt
    returns[3, 1] = np.nan
    found = scores(returns, dealt)
    assert np.isnan(found[3])
    assert np.delete(found, 3) == pytest.approx(np.delete(np.arange(8.0) + 15, 3))
