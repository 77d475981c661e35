"""A trained agent in a file: what ships is what is scored, it loads anywhere, and it plays and dreams alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from wm.agents.card import card_of, env_steps, markdown, scored
from wm.agents.files import export_agent, load_agent
from wm.agents.trained import Trained, of_run
from wm.agents.unpack import unpack
from wm.config.presets import PRESETS
from wm.config.schema import Polish, Rounds, Workers
from wm.errors import UserError
from wm.pool import LocalPool
from wm.runs.run import Run, open_existing, start_run
from wm.stages.evolve import evolve

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def trained(tiny: Run) -> Trained:
    return of_run(tiny)


def shipped(trained: Trained, folder: Path, half: bool, decoder: bool = True) -> Trained:
    files = export_agent(trained, half)
    for name, data in zip(("it", "it-decoder"), files if decoder else files[:1], strict=False):
        (folder / f"{name}.safetensors").write_bytes(data)
    return load_agent(str(folder / "it.safetensors"))


def test_what_is_loaded_is_what_was_exported(trained: Trained, tmp_path: Path) -> None:
    loaded = shipped(trained, tmp_path, half=False)
    assert loaded.config == replace(trained.config, rounds=Rounds(), polish=Polish(), workers=Workers())
    for ours, theirs in ((trained.vision, loaded.vision), (trained.memory, loaded.memory)):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name
    assert np.array_equal(loaded.theta, trained.theta)
    assert np.array_equal(loaded.starts.mu, trained.starts.mu[:64])
    np.testing.assert_allclose(loaded.starts.sigma, trained.starts.sigma[:64], rtol=1e-6)


def test_half_precision_takes_half_the_room_and_hardly_changes_anything(trained: Trained, tmp_path: Path) -> None:
    whole, half = (sum(map(len, export_agent(trained, half))) for half in (False, True))
    assert half < 0.55 * whole
    loaded = shipped(trained, tmp_path, half=True)
    frames = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    actions = [one.agent(2).act(frames, np.arange(2)) for one in (trained, loaded)]
    np.testing.assert_allclose(*actions, atol=0.02)
    assert loaded.theta.dtype == np.float64


def test_who_only_plays_needs_no_decoder(trained: Trained, tmp_path: Path) -> None:
    loaded = shipped(trained, tmp_path, half=True, decoder=False)
    assert not loaded.decodes
    frame = np.zeros((1, 64, 64, 3), np.uint8)
    assert loaded.agent().act(frame, np.arange(1)).shape == (1, 3)
    assert replace(loaded, config=trained.config).digest == loaded.digest


def test_it_dreams_alone(trained: Trained, tmp_path: Path) -> None:
    loaded = shipped(trained, tmp_path, half=True)
    dreams = gymnasium.make_vec("wm.dream.env:wm/Dream-v0", num_envs=3, world=loaded.world(steps=5))
    seen, _ = dreams.reset(seed=1)
    assert seen.shape == (3, loaded.controller.features_size)
    for _ in range(5):
        seen, reward, _, truncated, _ = dreams.step(dreams.action_space.sample())
    assert truncated.all()
    assert np.isfinite(reward).all()


def test_an_agent_without_m_does_not_dream(trained: Trained) -> None:
    with pytest.raises(UserError, match="can't dream"):
        replace(trained, memory=None).world()


@pytest.mark.parametrize("content", [None, b"", b"not an agent", b'\x08\0\0\0\0\0\0\0{"a":1} '])
def test_what_is_no_agent_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "it.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError):
        load_agent(str(path))


def test_the_card_says_how_it_was_made(tiny: Run) -> None:
    card = card_of(tiny)
    (run,) = card["runs"]
    assert [made["stage"] for made in run["made"]] == ["collect", "vision", "latents", "memory", "evolve"]
    frames, evolution = run["made"][0]["metrics"]["frames"], run["made"][-1]["metrics"]["env_steps"]
    assert card["env_steps"] == env_steps(tiny) == frames + evolution
    text = markdown("it", card)
    assert f"{frames + evolution:,}" in text
    evolution = next(line for line in text.splitlines() if line.startswith("| evolve |"))
    assert f"population {TINY.evolve.population}, " in evolution
    assert "tau" not in evolution  # as it is anyhow
    assert f"torch {torch.__version__}" in text
    hours = sum(made["seconds"] * made["cpus"] for made in run["made"]) / 3600
    assert f"**{hours:.1f} core-hours**" in text


def test_steps_count_once_however_many_runs_share_them(tiny: Run, tmp_path: Path) -> None:
    config = replace(TINY, evolve=replace(TINY.evolve, init=tiny.uri, seed=5, generations=1))
    run = start_run(str(tmp_path / "further"), "tiny", config, base=tiny.uri)
    own = evolve(run, LocalPool()).metrics["env_steps"]
    assert env_steps(run) == env_steps(tiny) + own
    assert [len(one["made"]) for one in card_of(run)["runs"]] == [5, 1]


def test_a_file_stands_alone_and_tells_nobody_where_runs_lie(tiny: Run, tmp_path: Path) -> None:
    section = replace(TINY.evolve, init=tiny.uri, init_sigma=0.01, components=3, steps=40, generations=1)
    run = start_run(str(tmp_path / "further"), "tiny", replace(TINY, evolve=section), base=tiny.uri)
    evolve(run, LocalPool())
    file = tmp_path / "it.safetensors"
    file.write_bytes(export_agent(replace(of_run(run), card=card_of(run)), half=True)[0])
    assert Path(tiny.uri).name.encode() in file.read_bytes()
    assert str(Path(tiny.uri).parent).encode() not in file.read_bytes()
    theirs = unpack(load_agent(str(file)), str(tmp_path / "theirs"))
    np.testing.assert_array_equal(of_run(theirs).theta, of_run(run).theta)


def test_the_score_is_shown_with_its_worst_tracks(tiny: Run) -> None:
    manifest = tiny.stage("score", of=of_run(tiny).digest).manifest()
    text = scored(manifest, "it")
    worst = min(manifest.content["episodes"], key=lambda episode: episode["score"])
    assert f"| {worst['seed']} | {worst['score']:.0f} |" in text
    assert "python -m jobs.score --agent it --episodes 2" in text
    assert f"{manifest.metrics['score']:.1f} ± {manifest.metrics['se']:.1f}" in text


def test_no_agent_before_there_is_a_c(copy: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"run `python -m jobs.evolve"):
        of_run(open_existing(str(copy("evolve", "score"))))
