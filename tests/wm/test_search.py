"""Searching on components finds the same linear C by other coordinates."""

import numpy as np
import pytest
import torch

from wm.controller import Controller
from wm.mistakes import Mistake
from wm.search import Weights, components_of

RNG = np.random.default_rng(1)
MIXED = RNG.normal(size=(6, 24))  # what is seen has six causes, and a little noise
SEEN = 3 + RNG.normal(size=(2000, 6)) @ MIXED + 1e-4 * RNG.normal(size=(2000, 24))


def controller(bias: bool = True, layer: int = 0) -> Controller:
    return Controller("zh", z=8, hidden=16, actions=3, bias=bias, layer=layer)


def acted(of: Controller, theta: np.ndarray, seen: np.ndarray = SEEN) -> np.ndarray:
    return of.act(of.tensor(theta), torch.from_numpy(seen.astype(np.float32))[None])[0].numpy()


@pytest.mark.parametrize("bias", [True, False])
def test_a_point_acts_as_its_numbers_say(bias: bool) -> None:
    """On components of mean 0 and deviation 1 each: with a bias, where its mean can be made up for."""
    c = controller(bias)
    search = components_of(c, SEEN, 6)
    assert search.size == 3 * (6 + bias) < c.size
    components = (SEEN - search.center) @ search.basis.T
    assert np.allclose((components**2).mean(axis=0), 1, atol=1e-6)
    assert np.allclose(components.T @ components / len(SEEN), np.eye(6), atol=1e-6)
    point = RNG.normal(size=search.size)
    matrix, constant = point[:18].reshape(3, 6), point[18:] if bias else 0.0
    assert np.allclose(acted(c, search.thetas(point)), components @ matrix.T + constant, atol=1e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_there_and_back(bias: bool) -> None:
    search = components_of(controller(bias), SEEN, 6)
    point = RNG.normal(size=search.size)
    assert np.allclose(search.point(search.thetas(point)), point)


def test_any_c_is_met_where_all_that_varies_is_kept() -> None:
    c = controller()
    theta = RNG.normal(size=c.size)
    kept, cut = (components_of(c, SEEN, count) for count in (6, 3))
    error, worse = (
        np.abs(acted(c, search.thetas(search.point(theta))) - acted(c, theta)).max() for search in (kept, cut)
    )
    assert error < 0.02 < 1 < worse


def test_a_population_is_as_its_points_one_by_one() -> None:
    search = components_of(controller(), SEEN, 6)
    points = RNG.normal(size=(5, search.size))
    assert np.allclose(search.thetas(points), [search.thetas(point) for point in points])


def test_weights_are_themselves() -> None:
    points = RNG.normal(size=(4, 9))
    assert Weights(9).thetas(points) is points


def test_mistakes() -> None:
    with pytest.raises(Mistake, match="say 24 or fewer"):
        components_of(controller(), SEEN, 25)
    with pytest.raises(Mistake, match="for a linear C"):
        components_of(controller(layer=4), SEEN, 3)
