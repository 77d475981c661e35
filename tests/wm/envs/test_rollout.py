"""The agent loop, with a game of numbers: who is alive, what is recorded, when it ends."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest

from wm.config.presets import PRESETS
from wm.envs.rollout import EnvironmentCache, EpisodeResult, ScriptedPolicy, play
from wm.seeds import TRAINING
from wm.stages.collect import script, tracks


class Counting(gymnasium.Env):
    """Ends after `seed` steps; a frame shows the seed and the step; the reward is the action's."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        self.seed, self.steps = seed or 0, 0
        return self._frame(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        return self._frame(), float(action[0]), self.steps == self.seed, False, {}

    def _frame(self) -> np.ndarray:
        return np.array([self.seed, self.steps])


class Watching:
    """Acts 1, or -1 after some step; remembers what it was shown."""

    def __init__(self, good: int = 10**9):
        self.good, self.seen = good, list[tuple[list, list]]()

    def act(self, frames: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        self.seen.append((frames.tolist(), episodes.tolist()))
        return np.full((len(frames), 1), 1.0 if len(self.seen) <= self.good else -1.0)


def games(*seeds: int) -> tuple[list[Counting], list[int]]:
    return [Counting() for _ in seeds], list(seeds)


def test_episodes_end_one_by_one() -> None:
    policy = Watching()
    assert play(*games(2, 4, 9), policy, steps=5) == [
        EpisodeResult(2, 2, 2.0, True),
        EpisodeResult(4, 4, 4.0, True),
        EpisodeResult(9, 5, 5.0, False),  # the limit ended it
    ]
    assert [episodes for _, episodes in policy.seen] == [[0, 1, 2], [0, 1, 2], [1, 2], [1, 2], [2]]
    assert policy.seen[2][0] == [[4, 2], [9, 2]]  # the frames of those who are alive, in their order


def test_the_recorder_sees_what_the_agent_saw() -> None:
    rows: list[tuple] = []

    def record(episode: int, frame: np.ndarray, action: np.ndarray, reward: float, *ends: bool) -> None:
        rows.append((episode, frame.tolist(), action.tolist(), reward, *ends))

    scripts = np.arange(8, dtype=np.float32).reshape(2, 4, 1)
    play(*games(2, 9), ScriptedPolicy(scripts), 3, record)
    assert [row for row in rows if row[0] == 0] == [
        (0, [2, 0], [0.0], 0.0, False, False),
        (0, [2, 1], [1.0], 1.0, True, False),
    ]
    assert [row for row in rows if row[0] == 1] == [
        (1, [9, 0], [4.0], 4.0, False, False),
        (1, [9, 1], [5.0], 5.0, False, False),
        (1, [9, 2], [6.0], 6.0, False, True),  # truncated by our own limit
    ]


@pytest.mark.parametrize(("patience", "length"), [(0, 20), (3, 7), (100, 20)])
def test_hopeless_episodes_are_given_up(patience: int, length: int) -> None:
    (played,) = play(*games(50), Watching(good=4), 20, patience=patience)
    assert (played.steps, played.terminated) == (length, False)
    assert played.score == 4 - (length - 4)


def test_a_fleet_builds_no_more_than_it_needs() -> None:
    made: list[object] = []
    fleet = EnvironmentCache(lambda: made.append(object()) or made[-1])
    assert fleet.of(2) == made[:2]
    assert fleet.of(3)[:2] == made[:2]
    assert fleet.of(1) == made[:1]
    assert len(made) == 3


def test_the_plan_of_an_episode_depends_on_its_number_alone() -> None:
    config = PRESETS["tiny"]
    seeds, scripts = tracks(config, range(6)), script(config, range(6)).scripts
    assert seeds[4:] == tracks(config, range(4, 6))
    assert np.array_equal(scripts[4:], script(config, range(4, 6)).scripts)
    assert scripts.shape == (6, 40, 3)
    assert len(set(seeds)) == 6
    assert min(seeds) >= TRAINING
    other = replace(config, seed=2)
    assert not set(seeds) & set(tracks(other, range(6)))
    assert not np.array_equal(scripts, script(other, range(6)).scripts)
