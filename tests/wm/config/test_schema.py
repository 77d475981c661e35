"""The config: presets, kinds of fields, what may change in a run and what a wrong value is told."""

import dataclasses
import json
from dataclasses import replace
from typing import Any

import pytest

from wm.config.fields import extended, flag, from_dict, leaves, of_kind, to_dict
from wm.config.presets import PRESETS
from wm.config.schema import Config, completed
from wm.errors import UserError

TINY = PRESETS["tiny"]


def changed(config: Config, path: str, value: Any) -> Config:
    section, _, name = path.rpartition(".")
    if not section:
        return replace(config, **{name: value})
    return replace(config, **{section: replace(getattr(config, section), **{name: value})})


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_right_and_survive_a_file(name: str) -> None:
    config = PRESETS[name].check()
    assert from_dict(json.loads(json.dumps(to_dict(config))), Config) == config


def test_every_field_has_a_kind_and_a_line_of_help() -> None:
    import inspect

    for item in dataclasses.fields(TINY):
        kind = type(getattr(TINY, item.name))
        for holder in kind.__mro__ if dataclasses.is_dataclass(kind) else (Config,):
            source = inspect.getsource(holder) if dataclasses.is_dataclass(holder) else ""
            lines = [line.strip() for line in source.splitlines()]
            for number, line in enumerate(lines):
                if any(f"= {kind}(" in line for kind in ("bits", "extent", "free")):
                    assert lines[number + 1].startswith('"""'), line
    assert {kind for kind, _ in leaves(TINY).values()} == {"bits", "extent", "free"}


def test_flags_are_spelled_as_on_the_command_line() -> None:
    assert flag("collect", "unit_episodes") == "collect.unit-episodes"
    assert of_kind(TINY, "extent") == {
        "collect.episodes": 4,
        "vision.steps": 6,
        "memory.steps": 6,
        "evolve.generations": 3,
        "score.episodes": 2,
        "rounds.count": 2,
        "rounds.generations": 2,
        "polish.generations": 0,
    }


def test_what_changes_bits_is_frozen_and_both_values_are_named() -> None:
    for path, value in (("seed", 2), ("vision.z", 64), ("evolve.where", "dream"), ("memory.learning_rate", 0.5)):
        old = leaves(TINY)[tuple(path.split("."))][1]
        with pytest.raises(UserError, match=rf"--{path.replace('_', '-')} {old}, not {value}: leave the flag out"):
            extended(TINY, changed(TINY, path, value))


def test_extents_grow_and_fall_no_further_than_what_is_done() -> None:
    more = changed(TINY, "vision.steps", 7)
    assert extended(TINY, more) == more
    for done in ({}, {"vision.steps": 7}, {"vision.steps": 8}):  # 8: a base's
        with pytest.raises(UserError, match=r"--vision.steps 6 is less than this run has come to: say 7 or more"):
            extended(more, TINY, lambda done=done: done)  # type: ignore[misc]
    assert extended(more, TINY, lambda: {"vision.steps": 6}) == TINY


def test_what_is_free_is_free() -> None:
    other = changed(changed(TINY, "workers.count", 7), "memory.checkpoint_seconds", 1.0)
    assert extended(TINY, other) == other


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("game", "chess", "say --game car-racing"),
        ("seed", 0, "--seed 0 is out of range"),
        ("threads", 0, "--threads 0 has to be above 0"),
        ("collect.episodes", 5, "--collect.episodes 5 is no multiple.*say 6"),
        ("collect.episodes", -2, "--collect.episodes -2 has to be above 0"),
        ("collect.patience", -1, "--collect.patience -1 is negative: say 0"),
        ("collect.policy", "clever", "no random policy 'clever': say --collect.policy mixture or"),
        ("vision.steps", 0, "--vision.steps 0"),
        ("vision.held_out", 1, "--vision.held-out 1 leaves nothing to train on"),
        ("vision.learning_rate", float("nan"), "--vision.learning-rate nan has to be above 0"),
        ("vision.patience", -1, "--vision.patience can't be negative"),
        ("vision.z", 0, "--vision.z 0"),
        ("latents.batch", 0, "--latents.batch 0"),
        ("memory.dropout", 1.0, "--memory.dropout 1.0 is no share"),
        ("memory.own", 0.6, "--memory.own 0.6 is out of range"),
        ("latents.mirrored", True, "car-racing is another game in a mirror"),
        ("memory.sequence", 0, "--memory.sequence 0"),
        ("memory.reward_clip", -1.0, "--memory.reward-clip -1.0 can't be negative"),
        ("controller.layer", -1, "--controller.layer -1 is negative"),
        ("evolve.population", 3, "--evolve.population 3 is too small"),
        ("evolve.sigma0", 0.0, "--evolve.sigma0 0.0"),
        ("evolve.patience", -1, "can't be negative"),
        ("evolve.device", "cuda", "is for dreams alone"),
        ("evolve.init_sigma", 0.1, "goes with --evolve.init"),
        ("evolve.refit", True, "name it by --evolve.init"),
        ("evolve.again", 1.0, "--evolve.again 1.0 is no share"),
        ("evolve.sigma_decay", 1.5, "--evolve.sigma-decay 1.5 is out of range"),
        ("evolve.mean_rate", 0.0, "--evolve.mean-rate 0.0 is out of range"),
        ("score.seed", 2**29, "--score.seed 536870912 is out of range"),
        ("workers.count", -1, "--workers.count -1 is negative"),
        ("workers.log_seconds", 0.0, "--workers.log-seconds 0.0"),
    ],
)
def test_a_wrong_value_is_named_with_its_cure(path: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as mistake:
        changed(TINY, path, value).check()
    assert "\n" not in str(mistake.value)


def test_no_dream_ends_with_a_lap_where_the_game_has_none() -> None:
    with pytest.raises(UserError, match=r"doom has no laps: leave --evolve\.dream-lap out") as mistake:
        changed(PRESETS["doom"], "evolve.dream_lap", True).check()
    assert "\n" not in str(mistake.value)


def test_a_field_that_came_later_has_its_default_and_one_that_is_unknown_is_refused() -> None:
    values = to_dict(replace(TINY, vision=replace(TINY.vision, z=16)))
    del values["vision"]["gamma"]
    found = from_dict(values, Config)
    assert (found.vision.z, found.vision.gamma) == (16, Config().vision.gamma)
    values["vision"]["depth"] = 3
    with pytest.raises(UserError, match=r"other fields than this version knows \(depth\): use its own version"):
        from_dict(values, Config)


def test_a_manifest_from_before_a_field_is_as_if_it_had_its_default() -> None:
    whole = of_kind(TINY, "bits")
    recorded = {path: value for path, value in whole.items() if "." not in path or path.startswith("vision.")}
    earlier = {path: value for path, value in recorded.items() if path not in ("vision.gamma", "vision.kind")}
    assert completed(earlier) == recorded


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({"evolve.components": -1}, "say 0 for none"),
        ({"evolve.cut": -5.0}, "say 0 for none"),
        ({"evolve.hardness": -0.1}, "say 0 for none"),
        ({"evolve.components": 8}, "name its run by --evolve.init"),
        ({"evolve.init": "x", "evolve.components": 8, "evolve.scaled": True}, "leave --evolve.scaled out"),
        ({"evolve.init": "x", "evolve.components": 8, "controller.layer": 40}, "--controller.layer 0"),
        ({"evolve.init": "x", "evolve.refit": True, "controller.layer": 40}, "only a linear C can be fitted"),
    ],
)
def test_components_are_of_what_a_linear_c_sees(changes: dict[str, Any], cure: str) -> None:
    config = TINY
    for path, value in changes.items():
        config = changed(config, path, value)
    with pytest.raises(UserError, match=cure):
        config.check()
