"""The fitness of candidates, and the tracks that distinguish them."""

import numpy as np

from wm.evolution.objective import clipped, most_telling


def test_no_episode_counts_more_than_the_cut() -> None:
    """With a cut, one crash costs less than driving slightly worse everywhere; without one it costs more."""
    scores = np.array([[900.0, 880.0, 300.0], [880.0, 860.0, 880.0], [890.0, 870.0, 890.0], [np.nan, 870.0, 880.0]])
    np.testing.assert_allclose(clipped(scores, 15.0).mean(axis=1), [5 / 3, -20 / 3, 10 / 3, np.nan])
    np.testing.assert_array_equal(clipped(scores, 0.0), scores)


def test_tracks_with_the_largest_spread_come_first() -> None:
    rows = [{"tracks": [1, 2, 3], "spread": [5.0, 9.0, 9.0]}, {}, {"tracks": [2, 4], "spread": [1.0, 5.0]}]
    assert most_telling(rows) == [3, 1, 4, 2]  # the last spread of track 2 counts
