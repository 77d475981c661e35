"""Doom from random play to a score in the real game, at a scale of seconds, as a user types it."""

from collections.abc import Callable
from pathlib import Path

from processes import Job

from wm.seeds import TEST


def test_the_pipeline_ends_in_a_score_of_the_real_game(tmp_path: Path, job: Callable[..., Job]) -> None:
    made = job("pipeline", "doom-tiny", "--run", tmp_path / "doom", "--local")
    assert made.wait() == 0, made.stderr
    stages = made.summary["stages"]
    assert stages["collect"]["frames"] == 4 * 60
    assert stages["evolve"]["env_steps"] <= 2 * 4 * 2 * 32  # all of it dreamt
    assert 0 <= stages["memory"]["done_auc"] <= 1
    score = stages["score"]
    assert score["first_seed"] == TEST
    assert score["score"] == score["env_steps"] / 2  # a tic counts 1
    assert score["score"] > 60
    assert 0 < score["dream_score"] <= 32
