"""The config: presets, kinds of fields, what may change within a run, and errors for wrong values."""

import dataclasses
import inspect
import json
from dataclasses import replace
from typing import Any

import pytest

from wm.config.fields import extended, flag, from_dict, leaves, of_kind, to_dict
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.errors import UserError
from wm.schemas import Wrong

TINY = PRESETS["tiny"]


def changed(config: Config, path: str, value: Any) -> Config:
    section, _, name = path.rpartition(".")
    if not section:
        return replace(config, **{name: value})
    return replace(config, **{section: replace(getattr(config, section), **{name: value})})


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_a_round_trip_through_json(name: str) -> None:
    config = PRESETS[name].check()
    assert from_dict(json.loads(json.dumps(to_dict(config))), Config) == config


def test_every_field_has_a_kind_and_a_line_of_help() -> None:
    holders = {Config}
    for item in dataclasses.fields(TINY):
        section = type(getattr(TINY, item.name))
        if dataclasses.is_dataclass(section):
            holders |= {holder for holder in section.__mro__ if dataclasses.is_dataclass(holder)}
    checked = 0
    for holder in holders:
        lines = [line.strip() for line in inspect.getsource(holder).splitlines()]
        for number, line in enumerate(lines):
            if any(f"= {kind}(" in line for kind in ("bits", "extent", "free")):
                assert lines[number + 1].startswith('"""'), line
                checked += 1
    assert checked > 80
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
        "rounds.evolve.generations": 2,
    }


@pytest.mark.parametrize(
    ("path", "value"), [("seed", 2), ("vision.z", 64), ("evolve.where", "dream"), ("memory.learning_rate", 0.5)]
)
def test_a_field_that_changes_results_is_frozen_and_the_error_names_both_values(path: str, value: Any) -> None:
    name = path.replace("_", "-")
    old = leaves(TINY)[name][1]
    with pytest.raises(UserError, match=rf"frozen with --{name} {old}, not {value}: remove the flag"):
        extended(TINY, changed(TINY, path, value))


def test_extents_can_grow_and_fall_only_as_far_as_what_is_done() -> None:
    more = changed(TINY, "vision.steps", 7)
    assert extended(TINY, more) == more
    for done in ({}, {"vision.steps": 7}, {"vision.steps": 8}):  # 8: the base run's
        with pytest.raises(UserError, match=r"--vision.steps must be 7 or more, since this run has come so far, got 6"):
            extended(more, TINY, lambda done=done: done)  # type: ignore[misc]
    assert extended(more, TINY, lambda: {"vision.steps": 6}) == TINY


def test_free_fields_can_always_change() -> None:
    other = changed(changed(TINY, "workers.count", 7), "workers.checkpoint_seconds", 1.0)
    assert extended(TINY, other) == other


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("game", "chess", "--game must be car-racing or doom, or gym:ID .*, got chess"),
        ("seed", 0, r"--seed must be in \[1, 2147483647\], got 0"),
        ("threads", 0, r"--threads must be in \[1, 1024\], got 0"),
        ("collect.episodes", 5, "--collect.episodes must be a multiple of.*got 5: use 6"),
        ("collect.episodes", -2, "--collect.episodes must be above 0, got -2"),
        ("collect.patience", -1, "--collect.patience must be 0 or more, got -1"),
        ("collect.policy", "clever", "--collect.policy must be mixture or .* for car-racing, got clever"),
        ("vision.steps", 0, "--vision.steps must be above 0, got 0"),
        ("vision.held_out", 1, "--vision.held-out must be 2 or more, got 1"),
        ("vision.learning_rate", float("nan"), "--vision.learning-rate must be a finite number .*, got nan"),
        ("vision.kl_weight", float("inf"), "--vision.kl-weight must be a finite number .*, got inf"),
        ("vision.threads", 100_000, r"--vision.threads must be in \[1, 1024\], got 100000"),
        ("evolve.sigma0", 1e8, "--evolve.sigma0 must be at most 1000, got 100000000.0"),
        ("evolve.population", 10**12, "--evolve.population must be a finite number of at most .*, got 1000000000000"),
        ("evolve.where", "moon", "--evolve.where must be real or dream, got 'moon'"),
        ("vision.z", 0, "--vision.z must be above 0, got 0"),
        ("latents.mirrored", True, "car-racing is not mirror-symmetric: remove --latents.mirrored"),
        ("memory.sequence", 0, "--memory.sequence must be above 0, got 0"),
        ("memory.reward_clip", -1.0, "--memory.reward-clip must be 0 or more, got -1.0"),
        ("controller.layer", -1, "--controller.layer must be 0 or more, got -1"),
        ("evolve.population", 3, "--evolve.population must be 4 or more for CMA-ES, got 3"),
        ("evolve.sigma0", 0.0, "--evolve.sigma0 must be above 0, got 0.0"),
        ("evolve.patience", -1, "--evolve.patience must be 0 or more, got -1"),
        ("evolve.device", "cuda", "--evolve.device cuda is for dreams only"),
        ("evolve.init_sigma", 0.1, "--evolve.init-sigma needs a run to start from: add --evolve.init"),
        ("evolve.refit", True, "--evolve.refit needs a run to start from: add --evolve.init"),
        ("evolve.again", 1.0, r"--evolve.again must be in \[0, 1\), got 1.0"),
        ("score.seed", 2**29, r"--score.seed must be in \[0, 536870910\], got 536870912"),
        ("workers.count", -1, "--workers.count must be 0 or more, got -1"),
        ("workers.log_seconds", 0.0, "--workers.log-seconds must be above 0, got 0.0"),
        ("workers.checkpoint_seconds", 0.0, "--workers.checkpoint-seconds must be above 0, got 0.0"),
    ],
)
def test_a_wrong_value_is_reported_with_its_cure(path: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        changed(TINY, path, value).check()
    assert "\n" not in str(error.value)


def test_a_dream_cannot_end_with_a_lap_in_a_game_without_laps() -> None:
    with pytest.raises(UserError, match=r"doom has no laps: remove --evolve\.dream-lap") as error:
        changed(PRESETS["doom"], "evolve.dream_lap", True).check()
    assert "\n" not in str(error.value)


def test_only_cars_have_pedals() -> None:
    changed(TINY, "controller.one_pedal", True).check()
    with pytest.raises(UserError, match=r"doom has no pedals: remove --controller\.one-pedal"):
        changed(PRESETS["doom"], "controller.one_pedal", True).check()


def test_a_missing_field_gets_its_default_and_an_unknown_field_is_an_error() -> None:
    values = to_dict(replace(TINY, vision=replace(TINY.vision, z=16)))
    del values["vision"]["gamma"]
    found = from_dict(values, Config)
    assert (found.vision.z, found.vision.gamma) == (16, Config().vision.gamma)
    values["vision"]["depth"] = 3
    with pytest.raises(Wrong, match=r"config.vision.depth is unknown"):
        from_dict(values, Config)


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({"evolve.components": -1}, "--evolve.components must be 0 or more, got -1"),
        ({"evolve.cut": -5.0}, "--evolve.cut must be 0 or more, got -5.0"),
        ({"evolve.hardness": -0.1}, "--evolve.hardness must be 0 or more, got -0.1"),
        ({"evolve.components": 8}, "--evolve.components needs a run to start from: add --evolve.init"),
        ({"evolve.init": "x", "evolve.components": 8, "evolve.scaled": True}, "--evolve.scaled exclude each other"),
        ({"evolve.init": "x", "evolve.components": 8, "controller.layer": 40}, "use --controller.layer 0"),
        ({"evolve.init": "x", "evolve.refit": True, "controller.layer": 40}, "--evolve.refit needs a linear C"),
    ],
)
def test_components_and_refit_need_a_linear_c_to_start_from(changes: dict[str, Any], cure: str) -> None:
    config = TINY
    for path, value in changes.items():
        config = changed(config, path, value)
    with pytest.raises(UserError, match=cure):
        config.check()


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("vision", "z", "x"),
        ("vision", "z", 1e12),
        ("vision", "z", True),
        ("vision", "kl_weight", None),
        ("vision", "kl_weight", float("nan")),
        ("vision", "frozen", 1),
        ("vision", "init", 7),
        ("evolve", "where", "moon"),
        ("controller", "latent", "q"),
        ("rounds", "overrides", "x"),
    ],
)
def test_values_of_another_type_are_refused(section: str, field: str, value: Any) -> None:
    """As a damaged or strange file may hold them."""
    values = to_dict(TINY)
    values[section][field] = value
    with pytest.raises((Wrong, UserError), match=field.replace("_", "[-_]")):
        from_dict(values, Config).check_values()


def test_sections_of_another_type_are_refused() -> None:
    with pytest.raises(Wrong, match=r"config.collect must be an object, got None"):
        from_dict(to_dict(TINY) | {"collect": None}, Config)
