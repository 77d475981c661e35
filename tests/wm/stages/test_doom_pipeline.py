"""Doom from random play to a score in the real game, at a scale of seconds, as a user types it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from processes import Job

from wm.agents.artifacts import load_vision
from wm.runs.datasets import latents_of, own_rollouts
from wm.runs.run import Run, open_existing
from wm.seeds import TEST
from wm.training.memory import MemoryLearner


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
    assert 32 < score["dream_score"] <= 2_100  # whole dreams, though C learned in short ones
    m_learns_from_the_mirror_too(open_existing(str(tmp_path / "doom")))


def m_learns_from_the_mirror_too(run: Run) -> None:
    config = run.config
    vision = run.need("vision")
    latents = latents_of(run.need("latents", of=vision.digest))
    frames = own_rollouts(run.need("collect")).read(1, ["frame"])["frame"]
    with torch.inference_mode():
        flipped = load_vision(vision).encode(torch.from_numpy(frames[:, :, ::-1].copy()))[0].numpy()
    stored = latents.read(1, ["mu", "mirrored_mu", "action", "reward"])
    assert np.allclose(stored["mirrored_mu"], flipped, atol=1e-4)
    assert not np.allclose(stored["mirrored_mu"], stored["mu"], atol=1e-3)  # V has hardly begun to learn

    episodes = MemoryLearner(config, latents, "cpu").episodes
    chosen, starts, length = torch.tensor([1, 1]), torch.tensor([5, 5]), 20
    both = episodes.sequences(chosen, starts, length, torch.tensor([False, True]))
    for row, (name, sign) in enumerate((("mu", 1), ("mirrored_mu", -1))):
        assert np.array_equal(both.mu[row].numpy(), stored[name][5:25])
        assert np.array_equal(both.a[row].numpy(), sign * stored["action"][5:25])
        assert np.array_equal(both.reward[row].numpy(), stored["reward"][5:25])
