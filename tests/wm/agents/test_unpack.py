"""A run unpacked from an agent file has the whole agent and can be extended."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wm.agents.card import card_of, env_steps
from wm.agents.files import export_agent, load_agent
from wm.agents.trained import Trained, of_run
from wm.agents.unpack import unpack
from wm.errors import UserError
from wm.pipeline import pipeline
from wm.pool import LocalPool
from wm.report.run_page import run_report
from wm.runs.run import Run, start_run
from wm.stages.evolve import evolve


@pytest.fixture(scope="module")
def shipped(tiny: Run, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("shipped")
    files = export_agent(replace(of_run(tiny), card=card_of(tiny)), half=True)
    for name, data in zip(("it", "it-decoder"), files, strict=True):
        (folder / f"{name}.safetensors").write_bytes(data)
    return load_agent(str(folder / "it.safetensors"))


@pytest.fixture
def unpacked(shipped: Trained, tmp_path: Path) -> Run:
    return unpack(shipped, str(tmp_path / "unpacked"))


def test_the_run_has_the_agent_of_the_file(shipped: Trained, unpacked: Run) -> None:
    found = of_run(unpacked)
    for ours, theirs in ((shipped.vision, found.vision), (shipped.memory, found.memory)):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name
    assert np.array_equal(found.theta, shipped.theta)
    assert np.array_equal(found.starts.mu, shipped.starts.mu)
    assert card_of(unpacked) == shipped.card


def test_a_missing_decoder_stays_missing(shipped: Trained, tmp_path: Path) -> None:
    run = unpack(replace(shipped, decodes=False), str(tmp_path / "blind"))
    assert not of_run(run).decodes
    assert export_agent(of_run(run), half=True)[1] is None
    assert "agent has no decoder for V" in run_report(run)


def test_unpacking_again_changes_nothing_and_another_agent_is_refused(shipped: Trained, unpacked: Run) -> None:
    before = unpacked.storage.sizes()
    unpack(shipped, unpacked.uri)
    assert unpacked.storage.sizes() == before
    with pytest.raises(UserError, match="holds another run: unpack the agent into a new folder"):
        unpack(replace(shipped, digest="another"), unpacked.uri)


def test_its_c_evolves_further_and_the_card_continues(tiny: Run, unpacked: Run, tmp_path: Path) -> None:
    config = replace(
        unpacked.config,
        evolve=replace(unpacked.config.evolve, init=unpacked.uri, init_sigma=0.01, generations=1),
    )
    run = start_run(str(tmp_path / "further"), "tiny", config, base=unpacked.uri)
    own = evolve(run, LocalPool()).metrics["env_steps"]
    assert env_steps(run) == env_steps(tiny) + own
    assert [len(part["made"]) for part in card_of(run)["runs"]] == [5, 1]
    drift = np.abs(of_run(run).theta - of_run(unpacked).theta).max()
    assert 0 < drift < 0.2  # it started there, not at 0


@pytest.mark.parametrize("frozen", [False, True])
def test_it_collects_for_a_round(tiny: Run, unpacked: Run, tmp_path: Path, frozen: bool) -> None:
    uri, config = unpacked.uri, tiny.config
    config = replace(
        config,
        collect=replace(config.collect, agent=uri, episodes=2),
        vision=replace(config.vision, init=uri, steps=3, frozen=frozen),
        memory=replace(config.memory, init=uri, steps=3),
        evolve=replace(config.evolve, init=uri, generations=1, refit=True),
    )
    run = start_run(str(tmp_path / "round"), "tiny", config)
    made = {manifest.stage: manifest for manifest in pipeline(run, LocalPool())}
    collect, evolution = made["collect"].metrics["frames"], made["evolve"].metrics["env_steps"]
    assert made["latents"].metrics["frames"] == collect > 0
    assert env_steps(run) == env_steps(tiny) + collect + evolution


def test_the_report_shows_the_existing_stages(unpacked: Run) -> None:
    text = run_report(unpacked)
    assert "In the game." in text
    assert "random frames seen" not in text


def test_stages_that_need_rollouts_report_that_there_are_none(unpacked: Run) -> None:
    config = replace(unpacked.config, memory=replace(unpacked.config.memory, steps=9))
    with pytest.raises(UserError, match=r"collect some with the agent \(--collect.agent URI\)"):
        pipeline(start_run(unpacked.uri, unpacked.preset, config), LocalPool())
    section = replace(unpacked.config.evolve, where="dream", dream_starts="any", seed=3)
    config = replace(unpacked.config, evolve=section)
    run = start_run(f"{unpacked.uri}-dream", "tiny", config, base=unpacked.uri)
    with pytest.raises(UserError, match=r"use --evolve.dream-starts first"):
        evolve(run, LocalPool())
