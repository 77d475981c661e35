"""What an agent took: the steps of all that its rollouts, V, M and C came from, each once."""

from dataclasses import replace
from pathlib import Path

import pytest

from wm.card import env_steps
from wm.config import Config
from wm.run import Run, start_run


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
