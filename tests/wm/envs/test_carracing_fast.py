"""The fast CarRacing against gymnasium's own: the same physics, rewards and ends, almost the same pictures."""

import pickle
import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from wm.envs import load
from wm.envs.carracing_fast import CarRacing

ID = "wm.envs:wm/CarRacing-v3"
BAR = 84  # its first row


def original(draws: bool = False, **options: Any) -> Any:
    env: Any = gymnasium.make("CarRacing-v3", **options).unwrapped
    if not draws:  # drawing takes 98% of its time and no part in physics
        env._render = lambda mode: np.zeros((96, 96, 3), np.uint8)
    return env


def explore(kind: str, steps: int, seed: int) -> np.ndarray:
    return load("car-racing").explore(kind, steps, np.random.default_rng(seed))


def physics(env: Any) -> tuple:
    hull = env.car.hull
    wheels = [
        (wheel.omega, wheel.phase, wheel.gas, wheel.brake, wheel.joint.angle, *wheel.position, len(wheel.tiles))
        for wheel in env.car.wheels
    ]
    moves = (*hull.position, hull.angle, *hull.linearVelocity, hull.angularVelocity)
    return moves, wheels, env.t, env.reward, env.tile_visited_count, [tile.road_visited for tile in env.road]


def compare(ours: Any, theirs: Any, seed: int, actions: Any) -> None:
    ours.reset(seed=seed)
    theirs.reset(seed=seed)
    for step, action in enumerate(actions):
        got, expected = ours.step(action), theirs.step(action)
        assert got[1:] == expected[1:], step
        assert physics(ours) == physics(theirs), step
        if got[2]:
            break


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    return CarRacing(), original()


@pytest.mark.parametrize(("seed", "kind"), [(11, "mild"), (12, "held"), (13, "brownian"), (14, "mild")])
def test_physics_are_the_game_s_bit_by_bit(pair, seed, kind):
    compare(*pair, seed, explore(kind, 400, seed))


def test_physics_at_full_gas_and_with_blocked_wheels(pair):
    full = np.tile(np.array((0.3, 1, 0), np.float32), (150, 1))
    full[60:] = (-1, 1, 0.5)
    full[100:] = (1, 0, 1)
    compare(*pair, 15, full)


def test_out_of_the_field_is_minus_100(pair):
    compare(*pair, 16, np.tile(np.array((0, 0.5, 0), np.float32), (400, 1)))
    assert pair[0].step(np.zeros(3, np.float32))[1:] == (-100, True, False, {"lap_finished": False})


def test_discrete_actions():
    compare(CarRacing(continuous=False), original(continuous=False), 1, np.arange(300) // 7 % 5)
    env = CarRacing(continuous=False)
    env.reset(seed=1)
    with pytest.raises(gymnasium.error.InvalidAction, match="invalid action 5"):
        env.step(5)


def test_pictures_have_the_game_s_instruments():
    ours, theirs = CarRacing(), original(draws=True)
    frames, expected = [ours.reset(seed=2)[0]], [theirs.reset(seed=2)[0]]
    for action in explore("held", 80, 2):
        frames.append(ours.step(action)[0])
        expected.append(theirs.step(action)[0])
    error = np.abs(np.array(frames, int) - expected)
    assert error[:51, :BAR].mean((1, 2, 3)).max() < 1
    assert error[51:, :BAR].mean((1, 2, 3)).max() < 0.5
    assert error[51:, 66:78, 45:51].mean() < 1.5  # the car
    assert error[:, BAR:].mean() < 0.01
    assert error[:, BAR:].max() < 16


def test_colours_may_be_random():
    ours, theirs = CarRacing(domain_randomize=True), original(draws=True, domain_randomize=True)
    for options in (None, {"randomize": False}, {"randomize": True}):
        frame, expected = (env.reset(seed=3, options=options)[0] for env in (ours, theirs))
        assert np.abs(frame.astype(int) - expected).mean() < 1.5
    before = ours.road_color.copy()
    ours.reset(options={"randomize": False})
    np.testing.assert_array_equal(ours.road_color, before)


def test_render_is_the_game_s_own_drawing():
    ours, theirs = CarRacing("rgb_array"), original(draws=True, render_mode="rgb_array")
    for env in (ours, theirs):
        env.reset(seed=4)
        for action in np.repeat(np.array(((0, 1, 0), (1, 0.5, 0.9)), np.float32), 10, axis=0):  # the car skids
            env.step(action)
    assert len(ours.car.particles) == len(theirs.car.particles) > 0
    picture, expected = ours.render(), theirs.render()
    assert picture.shape == (400, 600, 3)
    assert np.abs(picture.astype(int) - expected).mean() < 0.01  # tiles that only the hull has touched


def test_registered():
    theirs = gymnasium.make("CarRacing-v3")
    for options, shape in (({}, (96, 96, 3)), ({"size": 64}, (64, 64, 3))):
        env = gymnasium.make(ID, **options)
        assert env.spec is not None
        assert theirs.spec is not None
        assert env.spec.max_episode_steps == theirs.spec.max_episode_steps == 1000
        assert env.observation_space == gymnasium.spaces.Box(0, 255, shape, np.uint8)
        assert env.action_space == theirs.action_space
        frame, _ = env.reset(seed=1)
        assert frame in env.observation_space


def test_many():
    envs = gymnasium.make_vec(ID, num_envs=3, vectorization_mode="sync", size=64)
    frames, _ = envs.reset(seed=1)
    single = gymnasium.make(ID, size=64)
    np.testing.assert_array_equal(frames[1], single.reset(seed=2)[0])
    frames, rewards, *_ = envs.step(np.tile(np.array((0, 1, 0), np.float32), (3, 1)))
    assert frames.shape == (3, 64, 64, 3)
    assert rewards.shape == (3,)
    envs.close()


@pytest.mark.parametrize("options", [{}, {"size": 64}, {"continuous": False}, {"domain_randomize": True}])
def test_gymnasium_s_checker_finds_only_what_it_finds_in_the_original(options):
    def found(env: gymnasium.Env) -> set[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_env(env.unwrapped, skip_render_check=True)
        return {str(each.message) for each in caught}

    ours = found(gymnasium.make(ID, **options))
    options = {key: value for key, value in options.items() if key != "size"}
    theirs: Any = gymnasium.make("CarRacing-v3", **options)
    theirs.unwrapped._render = lambda mode: np.zeros((96, 96, 3), np.uint8)
    assert ours <= found(theirs)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="size must be 64 or 96, got 84"):
        CarRacing(size=84)


def test_a_copy_plays_alike():
    env = CarRacing(continuous=False, size=64)
    copy = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(env.reset(seed=5)[0], copy.reset(seed=5)[0])
    np.testing.assert_array_equal(env.step(3)[0], copy.step(3)[0])


def test_used_environments_forget():
    used, fresh = CarRacing(size=64), CarRacing(size=64)
    for seed in range(3):
        used.reset(seed=seed)
        for action in explore("held", 30, seed):
            used.step(action)
    np.testing.assert_array_equal(used.reset(seed=6)[0], fresh.reset(seed=6)[0])
    assert physics(used) == physics(fresh)


def test_importing_the_games_is_cheap():
    heavy = "import sys, wm.envs; print([name for name in ('torch', 'cv2', 'Box2D', 'pygame') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_ppo_trains_in_it():
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    env = gymnasium.make(ID, size=64)
    model = stable_baselines3.PPO("CnnPolicy", env, n_steps=64, batch_size=32, n_epochs=1, seed=1, device="cpu")
    before = [each.detach().clone() for each in model.policy.parameters()]
    model.learn(128)
    assert model.num_timesteps == 128
    assert any((each != old).any() for each, old in zip(model.policy.parameters(), before, strict=True))
