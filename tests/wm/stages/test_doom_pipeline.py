"""The pipeline for Doom, from random play to a score in the real game, in seconds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from processes import Job

from wm.agents.artifacts import load_vision
from wm.config.fields import of_kind
from wm.envs import load
from wm.runs.datasets import latents_of, own_rollouts
from wm.runs.run import Run, open_existing
from wm.seeds import TEST
from wm.training.memory import MemoryLearner


def test_the_pipeline_ends_with_a_score_in_the_real_game(tmp_path: Path, job: Callable[..., Job]) -> None:
    made = job("pipeline", "doom-tiny", "--run", tmp_path / "doom", "--local")
    assert made.wait() == 0, made.stderr
    stages = made.summary["stages"]
    assert stages["collect"]["frames"] == 4 * 60
    assert stages["evolve"]["env_steps"] <= 2 * 4 * 2 * 32  # steps of dreams
    assert 0 <= stages["memory"]["done_auc"] <= 1
    score = stages["score"]
    assert score["first_seed"] == TEST
    assert score["score"] == score["env_steps"] / 2  # 1 per tic, two tics per step
    assert score["score"] > 60
    assert 32 < score["dream_score"] <= 2_100  # whole dreams, although C was evolved in short ones
    check_mirrored_latents(open_existing(str(tmp_path / "doom")))


def check_mirrored_latents(run: Run) -> None:
    """M also trains on mirrored rollouts: V encodes the mirrored frames, and actions change sign."""
    vision, latents = run.need("vision"), latents_of(run.need("latents"))
    frames = own_rollouts(run.need("collect")).read(1, ["frame"])["frame"]
    with torch.inference_mode():
        flipped = load_vision(vision).encode(torch.from_numpy(frames[:, :, ::-1].copy()))[0].numpy()
    stored = latents.read(1, ["mu", "mirrored_mu", "action", "reward"])
    assert np.allclose(stored["mirrored_mu"], flipped, atol=1e-4)
    assert not np.allclose(stored["mirrored_mu"], stored["mu"], atol=1e-3)  # V has hardly been trained

    fields, mirror = of_kind(run.config, "bits"), load(run.config.game).mirror
    episodes = MemoryLearner(run.config.memory, fields, latents, "cpu", mirror).episodes
    chosen, starts, length = torch.tensor([1, 1]), torch.tensor([5, 5]), 20
    both = episodes.sequences(episodes.windows(chosen, starts, torch.tensor([False, True])), length)
    for row, (name, sign) in enumerate((("mu", 1), ("mirrored_mu", -1))):
        assert np.array_equal(both.mu[row].numpy(), stored[name][5:25])
        assert np.array_equal(both.a[row].numpy(), sign * stored["action"][5:25])
        assert np.array_equal(both.reward[row].numpy(), stored["reward"][5:25])
