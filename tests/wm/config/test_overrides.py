"""Overrides: values for a part of the run, keyed by the flags of the fields that they replace."""

import json
from dataclasses import replace
from typing import Any

import pytest

from wm.config.fields import extended, from_dict, leaves, parse_value, to_dict, with_overrides
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.errors import UserError

TINY = PRESETS["tiny"]


def with_rounds(**values: Any) -> Config:
    """TINY with these overrides, such as evolve__init_sigma=0.1, added to those of its rounds."""
    named = {name.replace("__", ".").replace("_", "-"): value for name, value in values.items()}
    return replace(TINY, rounds=replace(TINY.rounds, overrides=TINY.rounds.overrides | named))


def test_with_overrides_replaces_fields_by_flag() -> None:
    found = with_overrides(TINY, {"evolve.init-sigma": 0.1, "vision.steps": 7})
    assert (found.evolve.init_sigma, found.vision.steps) == (0.1, 7)
    assert found == replace(TINY, evolve=replace(TINY.evolve, init_sigma=0.1), vision=replace(TINY.vision, steps=7))
    assert with_overrides(TINY, {}) is TINY


@pytest.mark.parametrize("name", ["evolve.sigma9", "evolution.sigma0", "sigma0", "seed.x", ""])
def test_an_unknown_field_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"the config has no field {name}: --help-all lists all fields"):
        with_overrides(TINY, {name: 1})
    with pytest.raises(UserError, match=f"the config has no field {name}: --help-all lists all fields"):
        parse_value(TINY, name, "1")


def test_check_refuses_unknown_overrides() -> None:
    with pytest.raises(UserError, match=r"the config has no field evolve.sigma9"):
        replace(TINY, rounds=replace(TINY.rounds, overrides={"evolve.sigma9": 1})).check()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("evolve.generations", "30", 30),
        ("memory.learning-rate", "2e-3", 0.002),
        ("evolve.init-sigma", "1", 1.0),
        ("vision.frozen", "True", True),
        ("vision.frozen", "False", False),
        ("evolve.covariance", "diagonal", "diagonal"),
        ("evolve.init", "s3://bucket/run", "s3://bucket/run"),
    ],
)
def test_a_word_becomes_a_value_of_the_fields_type(name: str, text: str, value: Any) -> None:
    found = parse_value(TINY, name, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("evolve.generations", "many", "--evolve.generations must be an integer, got many"),
        ("evolve.generations", "1.5", "--evolve.generations must be an integer, got 1.5"),
        ("evolve.cut", "much", "--evolve.cut must be a number, got much"),
        ("vision.frozen", "yes", "--vision.frozen must be True or False, got yes"),
        ("evolve.covariance", "round", "--evolve.covariance must be one of full, diagonal, got round"),
    ],
)
def test_a_word_of_the_wrong_type_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_value(TINY, name, text)


def test_overrides_are_leaves_under_their_section() -> None:
    found = leaves(TINY)
    assert found["rounds.evolve.generations"] == ("extent", 2)
    assert found["rounds.memory.steps"] == ("bits", 3)
    assert not [name for name in found if "overrides" in name]


def test_only_the_generations_of_rounds_can_grow() -> None:
    more = with_rounds(evolve__generations=5)
    assert extended(TINY, more) == more
    with pytest.raises(UserError, match=r"--rounds.evolve.generations must be 5 or more.*got 2"):
        extended(more, TINY)
    assert extended(more, TINY, lambda: {"rounds.evolve.generations": 2}) == TINY
    with pytest.raises(UserError, match=r"frozen with --rounds.memory.steps 3, not 4: remove the flag"):
        extended(TINY, with_rounds(memory__steps=4))
    with pytest.raises(UserError, match=r"frozen with --rounds.memory.batch None, not 8"):
        extended(TINY, with_rounds(memory__batch=8))


def test_overrides_survive_a_round_trip_through_json() -> None:
    config = with_rounds(evolve__init_sigma=0.1, vision__frozen=True)
    assert from_dict(json.loads(json.dumps(to_dict(config))), Config) == config


def test_presets_do_not_share_overrides() -> None:
    first, second = Config(), Config()
    first.rounds.overrides["evolve.generations"] = 1
    assert second.rounds.overrides["evolve.generations"] == 60


def test_wrong_overrides_are_reported_with_their_cure() -> None:
    fresh = with_rounds(evolve__init_sigma=0.1)
    fresh = replace(fresh, rounds=replace(fresh.rounds, fresh=True))
    with pytest.raises(UserError, match=r"need a C to continue from: remove them, or --rounds.fresh"):
        fresh.check()
