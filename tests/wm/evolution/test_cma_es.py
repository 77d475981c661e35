import json

import numpy as np
import pytest
import torch

from wm.errors import Failure
from wm.evolution.cma_es import Evolution
from wm.runs.checkpoints import pack, unpack


def scores_of(thetas: np.ndarray) -> np.ndarray:
    rugged = np.cos(9 * thetas).sum(1)
    return -((thetas - 0.3) ** 2 @ np.arange(1, thetas.shape[1] + 1)) + rugged


def advance(evolution: Evolution, generations: int) -> list[np.ndarray]:
    means = []
    for _ in range(generations):
        thetas = evolution.ask()
        evolution.tell(scores_of(thetas))
        means.append(evolution.mean)
    return means


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("size", [5, 120])
def test_a_restored_state_goes_on_bit_for_bit(covariance, size):
    arguments = (size, 10, 0.2, covariance, 7)
    whole = Evolution(*arguments)
    undisturbed = advance(whole, 30)
    for stop in (0, 1, 17):
        evolution = Evolution(*arguments)
        advance(evolution, stop)
        arrays, plain = evolution.state()
        arrays, plain = {k: v.copy() for k, v in arrays.items()}, json.loads(json.dumps(plain))
        restored = Evolution(*arguments)
        restored.load_state(arrays, plain)
        for mine, theirs in zip(advance(restored, 30 - stop), undisturbed[stop:], strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert restored.sigma == whole.sigma


@pytest.mark.parametrize(
    ("size", "population", "generations"), [(195, 4, 8), (195, 5, 8), (195, 6, 8), (195, 7, 8), (867, 12, 3)]
)
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_so_does_one_that_went_through_a_file_after_each_generation(size, population, generations, covariance):
    """Small populations, and all of C's size, take some directions over into the next generation."""
    arguments = (size, population, 0.1, covariance, 3)
    whole, broken = Evolution(*arguments), Evolution(*arguments)
    for _ in range(generations):
        thetas = whole.ask()
        np.testing.assert_array_equal(broken.ask(), thetas)
        for one in (whole, broken):
            one.tell(scores_of(thetas))
        arrays, plain = broken.state()
        tensors, plain = unpack(pack({name: torch.from_numpy(array) for name, array in arrays.items()}, plain))
        broken = Evolution(*arguments)
        broken.load_state({name: tensor.numpy() for name, tensor in tensors.items()}, plain)


def test_it_climbs():
    evolution = Evolution(8, 16, 0.1, "full", 3)
    for _ in range(60):
        thetas = evolution.ask()
        evolution.tell(-((thetas - 0.3) ** 2).sum(1))
    np.testing.assert_allclose(evolution.mean, 0.3, atol=0.05)


def test_a_shrunken_sigma_is_kept_and_draws_candidates_closer():
    one, other = Evolution(6, 8, 0.1, "full", 5), Evolution(6, 8, 0.1, "full", 5)
    other.shrink(0.25)
    assert other.sigma == 0.025
    np.testing.assert_allclose(other.ask(), one.ask() / 4)
    restored = Evolution(6, 8, 0.1, "full", 5)
    restored.load_state(*other.state())
    assert restored.sigma == 0.025


def test_a_mean_that_goes_part_of_the_way():
    """From the same candidates; sigma learns from where they lay, however short the step."""
    whole, part = Evolution(6, 8, 0.1, "full", 5), Evolution(6, 8, 0.1, "full", 5, mean_rate=0.25)
    thetas = whole.ask()
    np.testing.assert_array_equal(part.ask(), thetas)
    for one in (whole, part):
        one.tell(scores_of(thetas))
    np.testing.assert_allclose(part.mean, 0.25 * whole.mean, rtol=1e-12)
    assert part.sigma == pytest.approx(whole.sigma, rel=1e-12)
    advance(part, 5)
    restored = Evolution(6, 8, 0.1, "full", 5, mean_rate=0.25)
    restored.load_state(*part.state())
    np.testing.assert_array_equal(advance(restored, 3), advance(part, 3))


def test_a_scale_is_the_same_search_in_other_units():
    scale = 2.0 ** np.arange(-5, 3)
    plain, scaled = (Evolution(8, 16, 0.1, "full", 3, np.full(8, 0.5) * by, by) for by in (np.ones(8), scale))
    for generation in range(20):
        thetas = plain.ask()
        np.testing.assert_array_equal(scaled.ask(), thetas * scale)
        for one in (plain, scaled):
            one.tell(scores_of(thetas))
        np.testing.assert_array_equal(scaled.mean, plain.mean * scale)
        if generation == 10:  # it is part of the state
            arrays, values = scaled.state()
            scaled = Evolution(8, 16, 0.1, "full", 3)
            scaled.load_state(arrays, values)


def test_asking_twice_gives_the_same_candidates():
    one, two = Evolution(6, 8, 0.1, "full", 5), Evolution(6, 8, 0.1, "full", 5)
    two.random.randn(100)  # randomness drawn by somebody else in between must not matter
    np.testing.assert_array_equal(one.ask(), two.ask())
    assert not np.array_equal(Evolution(6, 8, 0.1, "full", 6).ask(), one.ask())


def test_a_score_that_is_no_number_never_wins():
    evolution = Evolution(4, 8, 0.5, "full", 1)
    for _ in range(20):
        thetas = evolution.ask()
        scores = thetas[:, 0].copy()
        scores[thetas[:, 0] > 1] = np.nan  # beyond 1 the evaluation fails
        evolution.tell(scores)
    assert 0.3 < evolution.mean[0] < 1.3
    with pytest.raises(Failure, match="no candidate"):
        evolution.tell(np.full(8, np.nan))


def test_it_may_start_elsewhere():
    evolution = Evolution(3, 6, 0.1, "diagonal", 1, mean=np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(evolution.mean, [1, 2, 3])


def test_directions_are_searched_and_nothing_beside_them():
    """What is sought lies off the start along both directions and across them: it comes as near as they lead."""
    axes = np.array([[2.0, 0.0, 0.0, 0.5], [0.0, 0.0, 1.0, 0.0]])
    start, sought = np.array([0.0, 0.7, 0.0, 0.0]), np.array([0.8, 0.0, -0.6, 0.2])
    arguments = (4, 8, 0.1, "full", 3, start, axes)
    evolution = Evolution(*arguments)
    np.testing.assert_array_equal(evolution.mean, start)
    for generation in range(40):
        thetas = evolution.ask()
        assert np.linalg.matrix_rank(np.concatenate([thetas - start, axes]), 1e-9) == 2
        evolution.tell(-((thetas - sought) ** 2).sum(1))
        if generation == 20:  # they are part of the state
            arrays, plain = evolution.state()
            evolution = Evolution(*arguments[:6], np.eye(4)[:2])
            evolution.load_state(arrays, plain)
    np.testing.assert_allclose(evolution.mean, [0.8, 0.7, -0.6, 0.2], atol=1e-3)
