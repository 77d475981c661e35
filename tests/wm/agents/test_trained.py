"""Agent files: the loaded agent is the exported one, and it plays and dreams without its run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from wm.agents.card import card_of, env_steps, markdown, scored
from wm.agents.files import export_agent, load_agent, without_threads
from wm.agents.trained import Trained, of_run
from wm.agents.unpack import unpack
from wm.config.presets import PRESETS
from wm.config.schema import Rounds, Workers
from wm.errors import UserError
from wm.pool import LocalPool
from wm.runs.run import Run, open_existing, start_run
from wm.stages.evolve import evolve

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def trained(tiny: Run) -> Trained:
    return of_run(tiny)


def exported(trained: Trained, folder: Path, half: bool, decoder: bool = True) -> Trained:
    files = export_agent(trained, half)
    for name, data in zip(("it", "it-decoder"), files if decoder else files[:1], strict=False):
        (folder / f"{name}.safetensors").write_bytes(data)
    return load_agent(str(folder / "it.safetensors"))


def test_the_loaded_agent_equals_the_exported_one(trained: Trained, tmp_path: Path) -> None:
    loaded = exported(trained, tmp_path, half=False)
    expected = replace(trained.config, rounds=Rounds(), workers=Workers())
    assert loaded.config == without_threads(expected)
    for ours, theirs in ((trained.vision, loaded.vision), (trained.memory, loaded.memory)):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name
    assert np.array_equal(loaded.theta, trained.theta)
    assert np.array_equal(loaded.starts.mu, trained.starts.mu[:64])
    np.testing.assert_allclose(loaded.starts.sigma, trained.starts.sigma[:64], rtol=1e-6)


def test_half_precision_halves_the_file_and_hardly_changes_actions(trained: Trained, tmp_path: Path) -> None:
    whole, half = (sum(map(len, export_agent(trained, half))) for half in (False, True))
    assert half < 0.55 * whole
    loaded = exported(trained, tmp_path, half=True)
    frames = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    actions = [one.agent(2).act(frames, np.arange(2)) for one in (trained, loaded)]
    np.testing.assert_allclose(*actions, atol=0.02)
    assert loaded.theta.dtype == np.float64


def test_playing_needs_no_decoder(trained: Trained, tmp_path: Path) -> None:
    loaded = exported(trained, tmp_path, half=True, decoder=False)
    assert not loaded.decodes
    frame = np.zeros((1, 64, 64, 3), np.uint8)
    assert loaded.agent().act(frame, np.arange(1)).shape == (1, 3)
    assert replace(loaded, config=trained.config).digest == loaded.digest


def test_it_dreams_without_its_run(trained: Trained, tmp_path: Path) -> None:
    loaded = exported(trained, tmp_path, half=True)
    dreams = gymnasium.make_vec("wm.dream.env:wm/Dream-v0", num_envs=3, world=loaded.world(steps=5))
    seen, _ = dreams.reset(seed=1)
    assert seen.shape == (3, loaded.controller.features_size)
    for _ in range(5):
        seen, reward, _, truncated, _ = dreams.step(dreams.action_space.sample())
    assert truncated.all()
    assert np.isfinite(reward).all()


def test_an_agent_without_m_does_not_dream(trained: Trained) -> None:
    with pytest.raises(UserError, match="can't dream"):
        replace(trained, models=replace(trained.models, memory=None)).world()


@pytest.mark.parametrize("content", [None, b"", b"not an agent", b'\x08\0\0\0\0\0\0\0{"a":1} '])
def test_a_file_without_an_agent_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "it.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError):
        load_agent(str(path))


def test_the_card_describes_how_the_agent_was_made(tiny: Run) -> None:
    card = card_of(tiny)
    (run,) = card["runs"]
    assert [made["stage"] for made in run["made"]] == ["collect", "vision", "latents", "memory", "evolve"]
    frames, evolution = run["made"][0]["metrics"]["frames"], run["made"][-1]["metrics"]["env_steps"]
    assert card["env_steps"] == env_steps(tiny) == frames + evolution
    text = markdown("it", card)
    assert f"{frames + evolution:,}" in text
    evolution = next(line for line in text.splitlines() if line.startswith("| evolve |"))
    assert f"population {TINY.evolve.population}, " in evolution
    assert "tau" not in evolution  # the default
    assert f"torch {torch.__version__}" in text
    hours = sum(made["seconds"] * made["cpus"] for made in run["made"]) / 3600
    assert f"**{hours:.1f} core-hours**" in text


def test_steps_that_runs_share_count_once(tiny: Run, tmp_path: Path) -> None:
    config = replace(TINY, evolve=replace(TINY.evolve, init=tiny.uri, seed=5, generations=1))
    run = start_run(str(tmp_path / "further"), "tiny", config, base=tiny.uri)
    own = evolve(run, LocalPool()).metrics["env_steps"]
    assert env_steps(run) == env_steps(tiny) + own
    assert [len(one["made"]) for one in card_of(run)["runs"]] == [5, 1]


def test_a_file_is_self_contained_and_contains_no_paths(tiny: Run, tmp_path: Path) -> None:
    section = replace(TINY.evolve, init=tiny.uri, init_sigma=0.01, components=3, generations=1)
    run = start_run(str(tmp_path / "further"), "tiny", replace(TINY, evolve=section), base=tiny.uri)
    evolve(run, LocalPool())
    file = tmp_path / "it.safetensors"
    file.write_bytes(export_agent(replace(of_run(run), card=card_of(run)), half=True)[0])
    assert Path(tiny.uri).name.encode() in file.read_bytes()
    assert str(Path(tiny.uri).parent).encode() not in file.read_bytes()
    theirs = unpack(load_agent(str(file)), str(tmp_path / "theirs"))
    np.testing.assert_array_equal(of_run(theirs).theta, of_run(run).theta)


def test_the_score_lists_the_worst_tracks(tiny: Run) -> None:
    manifest = tiny.stage("score", of=of_run(tiny).digest).manifest()
    text = scored(manifest, "it")
    worst = min(manifest.content["episodes"], key=lambda episode: episode["score"])
    assert f"| {worst['seed']} | {worst['score']:.0f} |" in text
    assert "python -m jobs.score --agent it --episodes 2" in text
    assert f"{manifest.metrics['score']:.1f} ± {manifest.metrics['se']:.1f}" in text


def test_an_agent_needs_a_complete_evolution(copy: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"run `python -m jobs.evolve"):
        of_run(open_existing(str(copy("evolve", "score"))))
