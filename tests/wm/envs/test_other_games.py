"""Games that nobody here wrote: the options of a game of one's own, and the whole method on three of them."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from wm.config.fields import with_overrides
from wm.config.presets import PRESETS
from wm.envs import anygym, load
from wm.errors import UserError
from wm.pipeline import pipeline
from wm.pool import LocalPool
from wm.runs.run import start_run
from wm.runs.status import stage_statuses

LANDER = "gym:LunarLander-v3?skip=4&stack=3"
GRID = "gym:minigrid:MiniGrid-Empty-5x5-v0"
FREEWAY = "gym:ale_py:ALE/Freeway-v5"


class Wide(gymnasium.Env):
    """A wide picture whose left half is 10 times the step and whose right half is white, channels first. No limit."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = Box(0, 255, (3, 40, 80), np.uint8)
    action_space = Discrete(2)

    def __init__(self, render_mode: str | None = None, ends: int = 0):
        self.render_mode, self.ends, self.number = render_mode, ends, 0

    def _seen(self) -> np.ndarray:
        image = np.full((3, 40, 80), 255, np.uint8)
        image[:, :, :40] = 10 * self.number % 250
        return image

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.number = 0
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.number += 1
        return self._seen(), 1.0, self.number == self.ends, False, {}

    def render(self) -> Any:
        return np.full((40, 80, 3), 77, np.uint8)


gymnasium.register(id="TestWide-v0", entry_point=Wide, disable_env_checker=True, order_enforce=False)
RIGHT = np.array([0.0, 1.0], np.float32)


def test_skipped_steps_add_their_rewards_and_stop_at_the_end() -> None:
    game = load("gym:TestWide-v0?skip=4&ends=6")
    assert game.max_steps == 250
    env = game.make()
    env.reset(seed=1)
    assert env.step(RIGHT)[1:3] == (4.0, False)
    frame, reward, terminated, *_ = env.step(RIGHT)
    assert (reward, terminated) == (2.0, True)
    assert frame[32, 5, 0] == 60


def test_stacked_pictures_are_the_channels_from_old_to_new() -> None:
    env = load("gym:TestWide-v0?stack=3").make()
    assert env.reset(seed=1)[0][32, 5].tolist() == [0, 0, 0]
    assert env.step(RIGHT)[0][32, 5].tolist() == [0, 0, 10]
    assert env.step(RIGHT)[0][32, 5].tolist() == [0, 10, 20]
    assert env.step(RIGHT)[0][32, 5].tolist() == [10, 20, 30]
    assert env.reset(seed=1)[0][32, 5].tolist() == [0, 0, 0]  # nothing of the episode before
    two = load("gym:TestWide-v0?stack=2").make()
    two.reset(seed=1)
    two.step(RIGHT)
    assert two.step(RIGHT)[0][32, 5].tolist() == [10, 20, 20]


def test_pictures_that_are_not_square() -> None:
    stretched, padded, cropped = (load(f"gym:TestWide-v0?fit={fit}").make() for fit in ("stretch", "pad", "crop"))
    frame = stretched.reset(seed=1)[0]
    assert frame.shape == (64, 64, 3)
    assert (frame[0, 20, 0], frame[0, 50, 0]) == (0, 255)
    frame = padded.reset(seed=1)[0]
    assert (frame[2, 50, 0], frame[32, 50, 0]) == (0, 255)  # black above
    frame = cropped.reset(seed=1)[0]
    assert (frame[:, :32] == 0).all()
    assert (frame[:, 33:] == 255).all()
    assert (load("gym:TestWide-v0?view=render").make().reset(seed=1)[0] == 77).all()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("skip=0", "skip .* must be from 1 to 60, got 0"),
        ("stack=4", "stack .* must be 1 or 2 or 3, got 4"),
        ("fit=x", "fit"),
    ],
)
def test_wrong_options(query: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(f"gym:TestWide-v0?{query}")


@pytest.mark.parametrize(
    ("name", "steps", "own"),
    [
        (LANDER, 250, True),
        (GRID, 100, True),
        (FREEWAY, 27_000, True),
        (f"{FREEWAY}?max_episode_steps=500", 500, True),
        (f"{FREEWAY}?frameskip=2&skip=3", 18_000, True),
        ("gym:TestWide-v0", 1_000, False),
    ],
)
def test_the_limit_is_the_game_s_own(name: str, steps: int, own: bool) -> None:
    game = load(name)
    assert (game.max_steps, game.own_limit) == (steps, own)


def made(game: str, folder: Path, **fields: Any) -> dict[str, Any]:
    """All stages at the size of `tiny`; returns their metrics."""
    config = with_overrides(
        replace(PRESETS["tiny"], game=game), {"evolve.patience": 0, "evolve.generations": 2, **fields}
    )
    run = start_run(str(folder), "tiny", config)
    pipeline(run, LocalPool())
    return {name: status.manifest.metrics for name, status in stage_statuses(run).items() if status.manifest}


def test_lunar_lander(tmp_path: Path) -> None:
    fields = {"vision.change_weight": 1.0, "memory.reward_scaled": True, "memory.done": True}
    metrics = made(LANDER, tmp_path, **fields)
    assert -1_000 < metrics["score"]["score"] < 300
    assert metrics["vision"]["motion_shown"] < 0.5  # after six updates
    assert metrics["memory"]["held_out_reward"] < 30  # in units of the variance; in the game's, hundreds
    assert "cut" not in metrics["score"]


def test_minigrid_rewards_so_rarely_that_candidates_tie(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        metrics = made(GRID, tmp_path, **{"evolve.sigma0": 0.0001})
    assert metrics["collect"]["frames"] == 160  # no patience: the 40 steps of each of the four episodes
    assert metrics["evolve"]["env_steps"] == 2 * 4 * 2 * 100
    ties = [record.getMessage() for record in caplog.records if "all candidates score 0" in record.getMessage()]
    assert len(ties) == 1  # not again for every generation
    assert "--evolve.sigma0" in ties[0]


def test_freeway(tmp_path: Path) -> None:
    metrics = made(f"{FREEWAY}?max_episode_steps=60&skip=2", tmp_path)
    assert metrics["score"]["env_steps"] == 60
    assert metrics["score"]["episodes"] == 2


def test_a_score_says_where_it_was_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anygym, "MAX_STEPS", 30)
    anygym.any_game.cache_clear()
    with caplog.at_level(logging.WARNING):
        metrics = made("gym:TestWide-v0", tmp_path, **{"collect.steps": 30})
    anygym.any_game.cache_clear()
    assert (metrics["score"]["cut"], metrics["score"]["cut_at"]) == (2, 30)
    assert "2 of 2 episodes were cut at 30 steps" in caplog.text
    assert "'gym:TestWide-v0?max_episode_steps=N'" in caplog.text
