"""CMA-ES: restored states continue bit for bit, and what scales, directions and failed candidates do."""

import json

import numpy as np
import pytest
import torch
from tensors import unpacked

from wm.errors import Failure
from wm.evolution.cma_es import Evolution
from wm.runs.reader import pack


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
def test_a_restored_state_continues_bit_for_bit(covariance, size):
    arguments = (size, 10, 0.2, covariance, 7)
    uninterrupted = Evolution(*arguments)
    means = advance(uninterrupted, 30)
    for stop in (0, 1, 17):
        evolution = Evolution(*arguments)
        advance(evolution, stop)
        arrays, plain = evolution.state()
        arrays, plain = {k: v.copy() for k, v in arrays.items()}, json.loads(json.dumps(plain))
        restored = Evolution(*arguments)
        restored.load_state(arrays, plain)
        for mean, expected in zip(advance(restored, 30 - stop), means[stop:], strict=True):
            np.testing.assert_array_equal(mean, expected)
        assert restored.sigma == uninterrupted.sigma


@pytest.mark.parametrize(
    ("size", "population", "generations"), [(195, 4, 8), (195, 5, 8), (195, 6, 8), (195, 7, 8), (867, 12, 3)]
)
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_state_stored_after_each_generation_continues_bit_for_bit(size, population, generations, covariance):
    """With small populations, and with the size of C, pycma keeps some directions for the next generation."""
    arguments = (size, population, 0.1, covariance, 3)
    uninterrupted, stored = Evolution(*arguments), Evolution(*arguments)
    for _ in range(generations):
        thetas = uninterrupted.ask()
        np.testing.assert_array_equal(stored.ask(), thetas)
        for one in (uninterrupted, stored):
            one.tell(scores_of(thetas))
        arrays, plain = stored.state()
        tensors, plain = unpacked(pack({name: torch.from_numpy(array) for name, array in arrays.items()}, plain))
        stored = Evolution(*arguments)
        stored.load_state({name: tensor.numpy() for name, tensor in tensors.items()}, plain)


def test_the_mean_moves_to_the_best_scores():
    evolution = Evolution(8, 16, 0.1, "full", 3)
    for _ in range(60):
        thetas = evolution.ask()
        evolution.tell(-((thetas - 0.3) ** 2).sum(1))
    np.testing.assert_allclose(evolution.mean, 0.3, atol=0.05)


def test_a_scale_gives_the_same_search_in_other_units():
    scale = 2.0 ** np.arange(-5, 3)
    plain, scaled = (Evolution(8, 16, 0.1, "full", 3, np.full(8, 0.5) * by, by) for by in (np.ones(8), scale))
    for generation in range(20):
        thetas = plain.ask()
        np.testing.assert_array_equal(scaled.ask(), thetas * scale)
        for one in (plain, scaled):
            one.tell(scores_of(thetas))
        np.testing.assert_array_equal(scaled.mean, plain.mean * scale)
        if generation == 10:  # the scale is part of the state
            arrays, values = scaled.state()
            scaled = Evolution(8, 16, 0.1, "full", 3)
            scaled.load_state(arrays, values)


def test_candidates_are_a_function_of_the_seed():
    one, two = Evolution(6, 8, 0.1, "full", 5), Evolution(6, 8, 0.1, "full", 5)
    two.random.randn(100)  # numbers drawn elsewhere must not matter
    np.testing.assert_array_equal(one.ask(), two.ask())
    assert not np.array_equal(Evolution(6, 8, 0.1, "full", 6).ask(), one.ask())


def test_a_nan_score_counts_as_the_worst():
    evolution = Evolution(4, 8, 0.5, "full", 1)
    for _ in range(20):
        thetas = evolution.ask()
        scores = thetas[:, 0].copy()
        scores[thetas[:, 0] > 1] = np.nan  # the evaluation fails beyond 1
        evolution.tell(scores)
    assert 0.3 < evolution.mean[0] < 1.3
    with pytest.raises(Failure, match="no candidate"):
        evolution.tell(np.full(8, np.nan))


def test_it_starts_from_a_given_mean():
    evolution = Evolution(3, 6, 0.1, "diagonal", 1, mean=np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(evolution.mean, [1, 2, 3])


def test_only_the_given_directions_are_searched():
    """The optimum is not within reach of both directions: the mean comes as close as they allow."""
    axes = np.array([[2.0, 0.0, 0.0, 0.5], [0.0, 0.0, 1.0, 0.0]])
    start, optimum = np.array([0.0, 0.7, 0.0, 0.0]), np.array([0.8, 0.0, -0.6, 0.2])
    arguments = (4, 8, 0.1, "full", 3, start, axes)
    evolution = Evolution(*arguments)
    np.testing.assert_array_equal(evolution.mean, start)
    for generation in range(40):
        thetas = evolution.ask()
        assert np.linalg.matrix_rank(np.concatenate([thetas - start, axes]), 1e-9) == 2
        evolution.tell(-((thetas - optimum) ** 2).sum(1))
        if generation == 20:  # the directions are part of the state
            arrays, plain = evolution.state()
            evolution = Evolution(*arguments[:6], np.eye(4)[:2])
            evolution.load_state(arrays, plain)
    np.testing.assert_allclose(evolution.mean, [0.8, 0.7, -0.6, 0.2], atol=1e-3)
