"""Coverage: the tiles and speeds that a game reports of its rollouts, and the cells of z that they visit."""

import math

import numpy as np
import pytest

from wm.agents.trained import of_run
from wm.envs import load
from wm.experiments.coverage import AXES, LatentGrid, coverage, entropy
from wm.runs.datasets import latents_of, own_rollouts
from wm.runs.run import Run


def test_a_replay_without_rendering_is_the_same_drive() -> None:
    game, rng = load("car-racing"), np.random.default_rng(1)
    actions = game.explore("mild", 120, rng)
    visited = game.visited(11, actions)
    env = game.make(exact=True)
    env.reset(seed=11)
    earned, speeds = 0.0, []
    for action in actions:
        earned += env.step(action)[1]
        speeds.append(math.hypot(*env.unwrapped.car.hull.linearVelocity))
    tiles = visited["tiles"]
    assert tiles.sum() == env.unwrapped.tile_visited_count > 2
    assert earned == pytest.approx(1000 * tiles.mean() - 0.1 * 120)  # the reward counts the tiles
    assert visited["speed"].tolist() == speeds


def test_other_games_report_no_coverage() -> None:
    assert load("gym:CartPole-v1").visited(1, np.zeros((3, 1), np.float32)) == {}


def test_a_rounds_coverage(tiny: Run) -> None:
    trained = of_run(tiny)
    latents, made = tiny.need("latents"), tiny.need("collect")
    grid = LatentGrid.of(trained.vision, latents)
    mu = np.concatenate([latents_of(latents).read(episode, ["mu"])["mu"][::8] for episode in range(4)])
    along = (mu - grid.mean) @ grid.axes
    np.testing.assert_allclose(np.cov(along.T), np.eye(AXES), atol=1e-6)  # standard deviation 1, uncorrelated
    found = coverage(made, trained.game, grid)
    assert found == coverage(made, trained.game, grid)
    assert found["frames"] == 4 * 5
    assert 1 < found["cells"] <= 20
    assert 0 < found["track_share"] < 1
    assert found["speed"] > 0
    assert found["speed_bins"] >= 1
    frames = own_rollouts(made).read(0, ["frame"])["frame"]
    still = np.repeat(frames[:1], 3, axis=0)
    assert len(np.unique(grid.cells(still), axis=0)) == 1


def test_entropy_of_equal_bins() -> None:
    assert entropy(np.array([5, 5, 5, 5])) == pytest.approx(2)
    assert entropy(np.array([7])) == 0
