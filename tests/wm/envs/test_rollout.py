"""The agent loop with a game of numbers: live episodes, recording, and the end of episodes."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from wm.config.presets import PRESETS
from wm.envs import load
from wm.envs.rollout import EnvironmentCache, EpisodeResult, ScriptedPolicy, play
from wm.seeds import TRAINING
from wm.stages.collect import CollectWork, tracks


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
    """Acts 1, or -1 after `good` steps, and remembers its inputs."""

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
    assert policy.seen[2][0] == [[4, 2], [9, 2]]  # the frames of the live episodes, in order


def test_the_recorder_gets_the_frames_that_the_agent_saw() -> None:
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
        (1, [9, 2], [6.0], 6.0, False, True),  # truncated by the limit of `play`
    ]


@pytest.mark.parametrize(("patience", "length"), [(0, 20), (3, 7), (100, 20)])
def test_patience_ends_episodes_without_reward(patience: int, length: int) -> None:
    (played,) = play(*games(50), Watching(good=4), 20, patience=patience)
    assert (played.steps, played.terminated) == (length, False)
    assert played.score == 4 - (length - 4)


def test_the_cache_makes_only_as_many_environments_as_needed() -> None:
    made: list[object] = []
    cache = EnvironmentCache(lambda: made.append(object()) or made[-1])
    assert cache.of(2) == made[:2]
    assert cache.of(3)[:2] == made[:2]
    assert cache.of(1) == made[:1]
    assert len(made) == 3


def test_seeds_and_random_actions_depend_on_the_number_of_the_episode_only() -> None:
    def planned(seed: int, episodes: range) -> tuple[list[int], np.ndarray]:
        work = CollectWork(load("car-racing"), PRESETS["tiny"].collect, seed, 1, "", "collect")
        policy = work.policy(episodes)
        assert isinstance(policy, ScriptedPolicy)
        return tracks(seed, episodes), policy.scripts

    seeds, scripts = planned(1, range(6))
    some_seeds, some_scripts = planned(1, range(4, 6))
    assert seeds[4:] == some_seeds
    assert np.array_equal(scripts[4:], some_scripts)
    assert scripts.shape == (6, 40, 3)
    assert len(set(seeds)) == 6
    assert min(seeds) >= TRAINING
    other_seeds, other_scripts = planned(2, range(6))
    assert not set(seeds) & set(other_seeds)
    assert not np.array_equal(scripts, other_scripts)
