"""What an agent took: the steps of all that its rollouts, V, M and C came from, each once. And what it came to."""

from dataclasses import replace
from pathlib import Path

import pytest

from wm.agents.artifacts import load_models
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
def test_a_run_that_begins_with_another_s_weights_took_what_that_one_took(
    tiny: Run, tmp_path: Path, section: str, field: str, with_c: bool
) -> None:
    """But for the steps of C's evolution, where only V or M was taken over."""
    frames = tiny.stage("collect").manifest().metrics["frames"]
    assert env_steps(tiny) > frames
    config = changed(tiny.config, section, **{field: tiny.uri})
    begun = start_run(str(tmp_path / "begun"), tiny.preset, config)
    assert env_steps(begun) == (env_steps(tiny) if with_c else frames)
    further = start_run(str(tmp_path / "further"), tiny.preset, changed(config, "evolve", init=begun.uri))
    assert env_steps(further) == env_steps(begun)  # nobody's twice


def test_the_curve_goes_on_where_the_other_run_s_ended(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    """Rollouts are steps, too; of a run made of an agent's file only the end is known."""
    metrics, frames = (
        load_models(tiny.config, tiny)[0].manifest().metrics,
        tiny.stage("collect").manifest().metrics["frames"],
    )
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
