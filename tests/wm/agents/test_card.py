"""The steps behind an agent: those of its rollouts, V, M and C, each counted once; and its learning curve."""

from dataclasses import replace
from pathlib import Path

import pytest

from wm.agents.card import card_of, env_steps
from wm.agents.files import export_agent, load_agent
from wm.agents.trained import of_run
from wm.agents.unpack import unpack
from wm.config.schema import Config
from wm.pool import LocalPool
from wm.report.learning_curve import curve
from wm.runs.run import Run, start_run
from wm.stages.evolve import evolve


def changed(config: Config, section: str, **fields: object) -> Config:
    return replace(config, **{section: replace(getattr(config, section), **fields)})


@pytest.mark.parametrize(
    ("section", "field", "with_c"),
    [("vision", "init", False), ("memory", "init", False), ("evolve", "init", True), ("collect", "agent", True)],
)
def test_the_steps_of_an_initial_run_count(tiny: Run, tmp_path: Path, section: str, field: str, with_c: bool) -> None:
    """Those of its C count only if the run uses that C, not if it starts with its V or M."""
    frames = tiny.stage("collect").manifest().metrics["frames"]
    assert env_steps(tiny) > frames
    config = changed(tiny.config, section, **{field: tiny.uri})
    first = start_run(str(tmp_path / "first"), tiny.preset, config)
    assert env_steps(first) == (env_steps(tiny) if with_c else frames)
    further = start_run(str(tmp_path / "further"), tiny.preset, changed(config, "evolve", init=first.uri))
    assert env_steps(further) == env_steps(first)  # each run counts once


def test_the_curve_continues_that_of_the_initial_run(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    """Rollouts count as steps. For a run unpacked from an agent file only the last point is known."""
    metrics, frames = tiny.need("evolve").metrics, tiny.need("collect").metrics["frames"]
    before = curve(tiny)
    assert before[-1].steps == env_steps(tiny) == frames + metrics["env_steps"]
    assert max(point.score for point in before) == metrics["best_validation"]
    file = tmp_path / "agent.safetensors"
    file.write_bytes(export_agent(replace(of_run(tiny), card=card_of(tiny)), half=False)[0])
    theirs = unpack(load_agent(str(file)), str(tmp_path / "theirs"))
    config = replace(theirs.config, evolve=replace(theirs.config.evolve, init=theirs.uri, init_sigma=0.01))
    run = start_run(str(tmp_path / "ours"), "tiny", config, base=theirs.uri)
    assert [point.steps for point in curve(run)] == [before[-1].steps]
    evolve(run, pool)
    after = curve(run)
    assert after[0].score == metrics["best_validation"]
    assert after[-1].steps == env_steps(run) > env_steps(theirs) == before[-1].steps
    assert len(after) == 1 + len(before)
