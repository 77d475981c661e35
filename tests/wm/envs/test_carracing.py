import warnings
from typing import Any

import cv2
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from wm.envs import load

GAME = load("car-racing")
LOWEST, HIGHEST = (-1, 0, 0), (1, 1, 1)  # steer, gas, brake


def play(env, seed, actions):
    """Frames from the reset on, rewards, and how the episode stood after each step."""
    frames, rewards, ends = [env.reset(seed=seed)[0]], [], []
    for action in actions:
        frame, reward, terminated, truncated, _ = env.step(action)
        frames.append(frame)
        rewards.append(reward)
        ends.append((terminated, truncated))
        if terminated or truncated:
            break
    return np.array(frames), rewards, ends


def explore(kind, steps, seed):
    return GAME.explore(kind, steps, np.random.default_rng(seed))


def constant(*action, steps=1000):
    return np.tile(np.array(action, np.float32), (steps, 1))


@pytest.fixture(scope="module")
def pairs():
    """The same drives in the exact and in the fast environment: fast ones, curves, and off the road."""
    exact, fast = GAME.make(exact=True), GAME.make()
    drives = [(1, constant(0, 0.7, 0, steps=90)), (2, explore("held", 90, 2))]
    return [(play(exact, seed, actions), play(fast, seed, actions)) for seed, actions in drives]


@pytest.mark.parametrize(
    ("seed", "actions", "end"),
    [
        (3, explore("mild", 1000, 3), (True, False)),
        (4, explore("held", 1000, 4), (False, True)),
        (5, explore("brownian", 1000, 5), (False, True)),
        (6, constant(0, 0.5, 0), (True, False)),  # straight ahead and out of the field
    ],
)
def test_rewards_and_ends_are_the_game_s_own(seed, actions, end):
    original: Any = gymnasium.make("CarRacing-v3")
    # its drawing takes 98% of its time and no part in this
    original.unwrapped._render = lambda mode: np.zeros((96, 96, 3), np.uint8)
    _, rewards, ends = play(original, seed, actions)
    _, fast_rewards, fast_ends = play(GAME.make(), seed, actions)
    assert fast_rewards == rewards
    assert fast_ends == ends
    assert fast_ends[-1] == end
    assert len(fast_ends) == 1000 if end[1] else fast_rewards[-1] == -100


def test_drawing_changes_no_reward(pairs):
    for (_, rewards, ends), (_, fast_rewards, fast_ends) in pairs:
        assert fast_rewards == rewards
        assert fast_ends == ends


def test_frames_are_close_to_the_game_s(pairs):
    for (exact, _, _), (fast, _, _) in pairs:
        assert fast.shape == exact.shape == (91, 64, 64, 3)
        assert fast.dtype == exact.dtype == np.uint8
        error = np.abs(exact.astype(int) - fast)
        assert error[:51].mean((1, 2, 3)).max() < 1.5  # of 255, while the game zooms in
        assert error[51:].mean((1, 2, 3)).max() < 0.8
        assert error[51:, 50:62, 30:34].mean() < 1.5  # the car
        assert np.abs((exact.astype(float) - fast).mean((0, 1, 2))).max() < 0.3  # neither brighter nor darker


def test_a_track_whose_kerbs_have_no_width():
    exact, fast = (GAME.make(exact).reset(seed=298)[0].astype(int) for exact in (True, False))
    assert np.abs(exact - fast).mean() < 1.5


@pytest.mark.parametrize("axis", [0, 1])
def test_frames_are_not_shifted(pairs, axis):
    exact = np.concatenate([exact[51::6] for (exact, _, _), _ in pairs]).astype(np.float32)
    fast = np.concatenate([fast[51::6] for _, (fast, _, _) in pairs]).astype(np.float32)

    def moved(frame, by):
        matrix = np.array([[1, 0, 0], [0, 1, 0]], float)
        matrix[axis, 2] = by
        return cv2.warpAffine(frame, matrix, (64, 64))[2:-2, 2:-2]

    shifts = [-0.2, -0.1, 0.0, 0.1, 0.2]  # in pixels; each half by one of the two, which blurs both alike
    errors = [
        np.mean([np.abs(moved(e, s / 2) - moved(f, -s / 2)).mean() for e, f in zip(exact, fast, strict=True)])
        for s in shifts
    ]
    assert shifts[int(np.argmin(errors))] == 0.0, errors


def test_frames_depend_on_seed_and_actions_alone():
    used = GAME.make()
    play(used, 7, explore("held", 200, 7))
    actions = explore("mild", 100, 8)
    frames, rewards, _ = play(used, 8, actions)
    play(used, 9, explore("brownian", 100, 9))
    for env in (used, GAME.make()):
        again, rewards_again, _ = play(env, 8, actions)
        np.testing.assert_array_equal(again, frames)
        assert rewards_again == rewards


def test_a_frame_stays_as_it_was():
    env = GAME.make()
    first = env.reset(seed=1)[0]
    kept = first.copy()
    env.step(np.array([0, 1, 0], np.float32))
    np.testing.assert_array_equal(first, kept)


def test_exact_frames_are_the_unmodified_game_s_cut_and_shrunk():
    actions = explore("mild", 4, 0)
    exact, rewards, _ = play(GAME.make(exact=True), 1, actions)
    raw, raw_rewards, _ = play(gymnasium.make("CarRacing-v3", lap_complete_percent=1.0), 1, actions)
    expected = [cv2.resize(frame[:84], (64, 64), interpolation=cv2.INTER_AREA) for frame in raw]
    np.testing.assert_array_equal(exact, expected)
    assert rewards == raw_rewards


def test_the_exact_game_lasts_as_long():
    spec = GAME.make(exact=True).spec
    assert spec is not None
    assert spec.max_episode_steps == GAME.max_steps


def test_it_is_a_gymnasium_environment():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the game's action space is not symmetric
        check_env(GAME.make().unwrapped)
    for exact in (False, True):
        env = GAME.make(exact)
        assert env.observation_space == gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
        assert env.action_space.shape == (GAME.actions,)


def test_squash():
    raw = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, -1.0], [-50.0, 50.0, 50.0]])
    tanh = np.tanh(1)
    expected = torch.tensor([[0.0, 0.5, 0.0], [tanh, (1 - tanh) / 2, 0.0], [-1.0, 1.0, 1.0]])
    torch.testing.assert_close(GAME.squash(raw), expected.float())
    pedal = torch.tensor([[0.0, 0.0], [1.0, -1.0], [-50.0, 50.0]])
    expected = torch.tensor([[0.0, 0.0, 0.0], [tanh, 0.0, 0.1 * tanh], [-1.0, 0.5, 0.0]])
    torch.testing.assert_close(GAME.squash(pedal), expected.float())
    for outputs in (2, 3):
        many = GAME.squash(torch.randn(5, 7, outputs) * 10).numpy()
        assert many.shape == (5, 7, 3)
        assert ((many >= LOWEST) & (many <= HIGHEST)).all()


@pytest.mark.parametrize("kind", GAME.explorations)
def test_explore(kind):
    episodes = [explore(kind, 300, seed) for seed in range(20)]
    for actions in episodes:
        assert actions.shape == (300, 3)
        assert actions.dtype == np.float32
        assert ((actions >= LOWEST) & (actions <= HIGHEST)).all()
        assert actions.std(0)[:2].min() > 0.001
    np.testing.assert_array_equal(explore(kind, 300, 0), episodes[0])
    assert not np.array_equal(episodes[0], episodes[1])
    assert explore(kind, 1, 0).shape == (1, 3)


def test_the_default_exploration_mixes_the_others():
    assert GAME.explorations[0] == "mixture"
    drawn = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        kind = str(rng.choice(GAME.explorations[1:]))
        drawn.add(kind)
        np.testing.assert_array_equal(explore("mixture", 50, seed), GAME.explore(kind, 50, rng))
    assert drawn == set(GAME.explorations[1:])


def test_an_unknown_exploration_names_those_there_are():
    with pytest.raises(ValueError, match="mild"):
        explore("wild", 10, 0)
