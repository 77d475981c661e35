"""The table of stages agrees with the jobs, the config and the stage modules."""

import dataclasses
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from jobs.__main__ import jobs
from wm import stages as package
from wm.config.fields import leaves
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.pipeline import stage_function
from wm.runs.run import Run
from wm.runs.stages import STAGES, extent_of
from wm.runs.status import stage_statuses

TINY = PRESETS["tiny"]
WITHOUT_M = replace(TINY, controller=replace(TINY.controller, inputs="z"))


def test_each_stage_has_a_job_a_section_and_a_module_of_its_name() -> None:
    assert STAGES.keys() <= jobs().keys()
    assert STAGES.keys() <= {field.name for field in dataclasses.fields(Config)}
    assert STAGES.keys() <= {path.stem for path in Path(package.__path__[0]).glob("*.py")}
    for name, info in STAGES.items():
        assert info.name == name
        assert info.function.startswith(f"wm.stages.{name}:")
        assert stage_function(name) is getattr(import_module(f"wm.stages.{name}"), info.function.partition(":")[2])


def test_extents_are_fields_of_that_kind() -> None:
    fields = leaves(TINY)
    for name, info in STAGES.items():
        assert fields[info.extent] == ("extent", extent_of(TINY, name))


def test_inputs_and_sections_exist_and_come_earlier() -> None:
    names = list(STAGES)
    for config in (TINY, WITHOUT_M):
        for name, info in STAGES.items():
            for source in (info.made_of(config), info.reads):
                assert source is None or source in names[: names.index(name)], name
            assert set(info.sections) <= {field.name for field in dataclasses.fields(Config)}


def test_c_is_made_of_m_only_if_it_uses_it() -> None:
    assert STAGES["evolve"].made_of(TINY) == "memory"
    assert STAGES["evolve"].made_of(WITHOUT_M) == "vision"


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_of_a_complete_run_is_found_by_name(tiny: Run, name: str) -> None:
    """`need` and `stage` find the inputs of a stage by the table."""
    made, status = tiny.need(name), stage_statuses(tiny)[name]
    assert made.stage == name
    assert made.extent == extent_of(tiny.config, name) == tiny.stage(name).wanted
    assert tiny.stage(name).complete() == made
    assert status.manifest == status.need(tiny) == made
    assert status.complete
