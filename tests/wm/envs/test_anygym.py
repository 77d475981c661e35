"""Any environment of gymnasium by its id: its picture, its actions, and clear words where it has none."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary

from wm.envs import load
from wm.errors import UserError
from wm.runs.run import Run
from wm.runs.status import stage_statuses

DISCRETE, CONTINUOUS = "gym:CarRacing-v3?continuous=false", "gym:Pendulum-v1"


class Shy(gymnasium.Env):
    """Neither shows itself nor draws."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = Box(-1, 1, (3,))
    action_space = Discrete(2)
    render_mode = None

    def __init__(self, render_mode: str | None = None):
        pass


class Grey(gymnasium.Env):
    """A grey picture, and actions from 3 on."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = Box(0, 255, (30, 20), np.uint8)
    action_space: Any = Discrete(2, start=3)
    render_mode = None

    def __init__(self, render_mode: str | None = None):
        self.taken: list[int] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.full((30, 20), 7, np.uint8), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.taken.append(action)
        return np.full((30, 20), 9, np.uint8), 0.0, False, False, {}


class Odd(Grey):
    action_space = MultiBinary(3)


class Boundless(Grey):
    action_space = Box(-np.inf, np.inf, (1,))


for kind in (Shy, Grey, Odd, Boundless):
    gymnasium.register(id=f"Test{kind.__name__}-v0", entry_point=kind, disable_env_checker=True, order_enforce=False)


def test_discrete_actions_are_numbers_of_which_one_is_1() -> None:
    game = load(DISCRETE)
    assert (game.actions, game.max_steps, game.name) == (5, 1000, DISCRETE)
    squashed = game.squash(torch.tensor([[[0.1, 0.2, -1.0, 3.0, 0.0]], [[0.5, 0.2, -1.0, 0.3, 0.0]]]))
    assert squashed.tolist() == [[[0, 0, 0, 1, 0]], [[1, 0, 0, 0, 0]]]
    assert squashed.dtype == torch.float32
    for policy in game.explorations:
        actions = game.explore(policy, 400, np.random.default_rng(1))
        assert actions.shape == (400, 5)
        assert (actions.sum(1) == 1).all()
        assert (actions.sum(0) > 20).all()


def test_a_box_is_filled_to_its_bounds() -> None:
    game = load(CONTINUOUS)
    assert (game.actions, game.max_steps) == (1, 200)
    torch.testing.assert_close(
        game.squash(torch.tensor([[-50.0], [0.0], [50.0]])), torch.tensor([[-2.0], [0.0], [2.0]])
    )
    actions = game.explore("held", 500, np.random.default_rng(1))
    assert actions.min() < -1.5
    assert 1.5 < actions.max() <= 2


@pytest.mark.parametrize("name", [DISCRETE, CONTINUOUS])
def test_its_picture_is_what_v_sees(name: str) -> None:
    game = load(name)
    actions = game.explore("held", 5, np.random.default_rng(1))
    played = []
    for _ in range(2):
        env = game.make()
        frames = [env.reset(seed=1)[0]] + [env.step(action)[0] for action in actions]
        assert env.observation_space.shape == (64, 64, 3)
        env.close()
        played.append(np.array(frames))
    assert played[0].shape == (6, 64, 64, 3)
    assert played[0].dtype == np.uint8
    assert played[0].std() > 5
    np.testing.assert_array_equal(*played)
    assert not np.array_equal(played[0][0], game.make().reset(seed=2)[0])


def test_grey_pictures_and_odd_numbering() -> None:
    env: Any = load("gym:TestGrey-v0").make()
    assert (env.reset(seed=1)[0] == 7).all()
    frame = env.step(np.array([0.0, 1.0], np.float32))[0]
    assert frame.shape == (64, 64, 3)
    assert env.unwrapped.taken == [4]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gym:Nothing-v0", "can't make gym:Nothing-v0 .*: use --game gym:ID"),
        ("gym:no_module:Some-v0", "can't make gym:no_module:Some-v0 .*: use --game gym:ID"),
        ("gym:CarRacing-v3?colour=red", "colour"),
        ("gym:TestShy-v0", "has no images"),
        ("gym:TestOdd-v0", "must be a Discrete or a bounded Box"),
        ("gym:TestBoundless-v0", "must be a Discrete or a bounded Box"),
        ("tetris", "--game must be car-racing or doom, or gym:ID for an environment of gymnasium, got tetris"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_can_not_be_played_says_why(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(name)


def test_the_whole_method_on_somebody_else_s_game(cartpole: Run) -> None:
    """Collected, seen, remembered, dreamt and scored, by its id on the command line."""
    metrics = {name: stage.manifest.metrics for name, stage in stage_statuses(cartpole).items() if stage.manifest}
    assert len(metrics) == 6
    assert metrics["collect"]["score"] > 5
    assert metrics["score"]["score"] > 5
    assert metrics["score"]["dream_episodes"] == metrics["score"]["episodes"]
    assert 0 <= metrics["memory"]["done_auc"] <= 1
    assert sum(row["steps"] for row in metrics["memory"]["done_reliability"]) > 10


def test_doing_nothing_is_an_action_of_the_game() -> None:
    assert load("gym:CartPole-v1").idle().tolist() == [1, 0]
    assert load("car-racing").idle().tolist() == [0, 0, 0]  # neither steers, nor gas, nor brake
    pendulum = load("gym:Pendulum-v1")
    assert pendulum.idle().tolist() == [0]
