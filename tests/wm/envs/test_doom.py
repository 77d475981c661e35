"""TakeCover: what it scores and shows, that seeds decide all of it, and that a lost process changes nothing."""

import contextlib
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from wm.envs import doom, load

GAME = load("doom")
STEPS = 40


def script(seed: int = 0, steps: int = STEPS) -> np.ndarray:
    return GAME.explore("held", steps, np.random.default_rng(seed))


def play(env: Any, seed: int, actions: np.ndarray, trouble: Any = None) -> tuple[np.ndarray, list[tuple]]:
    frames, outcomes = [env.reset(seed=seed)[0]], []
    for step, action in enumerate(actions):
        if trouble:
            trouble(step)
        frame, reward, terminated, truncated, _ = env.step(action)
        frames.append(frame)
        outcomes.append((reward, terminated, truncated))
        if terminated or truncated:
            break
    return np.array(frames), outcomes


def elsewhere(seed: int, send: Any) -> None:
    send.send(play(GAME.make(), seed, script()))


@pytest.fixture(scope="module")
def env():
    env: Any = GAME.make()
    yield env
    env.close()


@pytest.fixture(scope="module")
def undisturbed(env):
    return play(env, 5, script())


def test_an_episode_lasts_until_death_and_each_tic_counts_one(env) -> None:
    assert env.observation_space == Box(0, 255, (64, 64, 3), np.uint8)
    assert env.action_space.shape == (GAME.actions,)
    frames, outcomes = play(env, 3, np.zeros((GAME.max_steps, 1), np.float32))
    assert 50 < len(outcomes) < 2100
    assert {reward for reward, _, _ in outcomes} == {1.0}
    assert outcomes[-1] == (1.0, True, False)
    assert not any(terminated or truncated for _, terminated, truncated in outcomes[:-1])
    np.testing.assert_array_equal(frames[-1], frames[-2])  # the last observation is empty: nothing new is shown
    assert frames.std() > 10


def test_training_plays_the_same_game_on_a_smaller_screen(env) -> None:
    """Tic for tic the same happens, and V sees it at the same place."""
    original: Any = GAME.make(exact=True)
    frames, outcomes = play(env, 4, script(steps=200))
    exact, expected = play(original, 4, script(steps=200))
    assert original.render().shape == (480, 640, 3)
    assert env.render().shape == (240, 320, 3)
    original.close()
    assert outcomes == expected
    apart = [np.abs(np.roll(frames, rows, axis=1).astype(int) - exact)[:, 1:-1].mean() for rows in (-1, 0, 1)]
    assert 0 < apart[1] < 2.5
    assert apart[1] < 0.8 * min(apart[0], apart[2])  # no row off


def test_time_limit_is_not_death(env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doom, "MAX_STEPS", 20)
    other: Any = GAME.make()
    _, outcomes = play(other, 1, script())
    other.close()
    assert outcomes == [(1.0, False, False)] * 19 + [(1.0, False, True)]


def test_seed_and_actions_decide_all(env, undisturbed) -> None:
    """In the same process after another episode, and in another process."""
    play(env, 6, script(1))
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    other = context.Process(target=elsewhere, args=(5, send))
    other.start()
    again = [play(env, 5, script()), receive.recv()]
    other.join()
    for frames, outcomes in again:
        np.testing.assert_array_equal(frames, undisturbed[0])
        assert outcomes == undisturbed[1]
    assert not np.array_equal(play(env, 7, script())[0], undisturbed[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["crash", "hang"])
def test_a_lost_process_changes_nothing(env, undisturbed, number, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = []

    def trouble(step: int) -> None:
        if step == 25:
            if number == signal.SIGSTOP:
                monkeypatch.setattr(doom, "STEP_SECONDS", 1.0)
            lost.append(env.process.pid)
            os.kill(env.process.pid, number)
        elif step == 26:
            monkeypatch.undo()

    frames, outcomes = play(env, 5, script(), trouble)
    np.testing.assert_array_equal(frames, undisturbed[0])
    assert outcomes == undisturbed[1]
    assert env.process.pid not in lost
    assert not Path(f"/proc/{lost[0]}").exists()


def test_a_process_that_keeps_dying_is_an_error(env, monkeypatch: pytest.MonkeyPatch) -> None:
    env.reset(seed=1)
    act = doom.Process.act

    def dies(self: doom.Process, buttons: list[int]) -> Any:
        os.kill(self.pid, signal.SIGKILL)
        return act(self, buttons)

    monkeypatch.setattr(doom.Process, "act", dies)
    with pytest.raises(doom.vizdoom.ViZDoomErrorException):
        env.step(np.zeros(1, np.float32))


def play_on(send: Any) -> None:
    env: Any = GAME.make()
    env.reset(seed=1)
    send.send((env.process.pid, env.process.folder.name))
    time.sleep(600)


def runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_it_does_not_outlive_who_plays_it() -> None:
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    player = context.Process(target=play_on, args=(send,))
    player.start()
    pid, folder = receive.recv()
    os.kill(pid, 0)
    player.kill()
    player.join()
    end = time.monotonic() + 60
    while Path(folder).exists() or runs(pid):
        assert time.monotonic() < end, "it is still there"
        time.sleep(0.05)


def test_a_third_of_the_actions_each_goes_left_right_or_nowhere(env, monkeypatch: pytest.MonkeyPatch) -> None:
    env.reset(seed=1)
    for a in (-1.0, -0.34, -0.33, 0.0, 0.33, 0.34, 1.0):
        env.step(np.array([a], np.float32))
    assert env.taken == [doom.LEFT, doom.LEFT, doom.STAY, doom.STAY, doom.STAY, doom.RIGHT, doom.RIGHT]


def test_squash() -> None:
    raw = torch.tensor([[-50.0], [-0.35], [-0.34], [0.0], [0.34], [0.35], [50.0]])  # tanh(0.3466) is a third
    torch.testing.assert_close(GAME.squash(raw), torch.tensor([[-1.0], [-1.0], [0.0], [0.0], [0.0], [1.0], [1.0]]))


@pytest.mark.parametrize("kind", GAME.explorations)
def test_explore(kind: str) -> None:
    actions = GAME.explore(kind, 3000, np.random.default_rng(1))
    assert actions.shape == (3000, 1)
    assert actions.dtype == np.float32
    assert set(np.unique(actions)) <= {-1, 0, 1}
    np.testing.assert_array_equal(actions, GAME.explore(kind, 3000, np.random.default_rng(1)))


@pytest.mark.parametrize("kind", ["held", "independent", "long"])
def test_it_goes_left_and_right_and_nowhere_alike(kind: str) -> None:
    actions = np.concatenate([GAME.explore(kind, 3000, np.random.default_rng(seed)) for seed in range(40)])
    shares = [(actions < -1 / 3).mean(), (np.abs(actions) <= 1 / 3).mean(), (actions > 1 / 3).mean()]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.06)


def test_who_swings_goes_to_and_fro_at_a_pace_of_the_episodes_own() -> None:
    paces = []
    for seed in range(100):
        left = GAME.explore("swinging", 3000, np.random.default_rng(seed))[:, 0] < 0
        swings = np.diff(np.flatnonzero(np.diff(left)))
        assert swings.max() <= 3 * swings.min() + 3
        paces.append(swings.mean())
    assert min(paces) < 15
    assert max(paces) > 130


def test_held_actions_last_one_to_ten_tics() -> None:
    class ToAndFro(np.random.Generator):  # draws no move twice in a row, so that each hold is a run by itself
        def integers(self, low, high=None, size=None, **more):  # type: ignore[no-untyped-def]
            drawn = super().integers(low, high, size, **more)
            return np.resize((-1, 1), len(drawn))[:, None] if low == -1 else drawn

    actions = GAME.explore("held", 3000, ToAndFro(np.random.PCG64(1)))[:, 0]
    runs = np.diff(np.flatnonzero(np.diff(actions, prepend=np.nan, append=np.nan)))
    assert (runs.min(), runs.max()) == (1, 10)
    with pytest.raises(ValueError, match="held"):
        GAME.explore("wild", 10, np.random.default_rng(0))
