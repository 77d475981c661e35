"""Kinds of config fields, and the rules that follow from a field's kind.

bits     changes results; frozen by the first stage of a run
extent   how far to go; may change later, but not below what is already done, so a finished run can be extended
free     affects speed and convenience only; never frozen

A section may also hold overrides: values for fields of other sections, keyed by flag ("evolve.generations"), that
apply to a part of the run.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from wm import schemas
from wm.errors import UserError

C = TypeVar("C")
T = TypeVar("T")
LARGEST = 2**31 - 1  # of all numbers in a config


def bits(default: Any) -> Any:
    return field(default=default, metadata={"kind": "bits"})


def extent(default: int) -> Any:
    return field(default=default, metadata={"kind": "extent"})


def free(default: Any) -> Any:
    return field(default=default, metadata={"kind": "free"})


def overrides(default: Mapping[str, Any]) -> Any:
    return field(default_factory=lambda: dict(default), metadata={"kind": "overrides"})


EXTENT_OVERRIDE = "evolve.generations"  # C comes last, so it is all that can be extended in a later part of a run


def positive(section: Any, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if not 0 < value < math.inf:  # also refuses NaN
            raise UserError(f"--{flag(prefix, name)} must be above 0, got {value}")


def not_negative(section: Any, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if not 0 <= value < math.inf:
            raise UserError(f"--{flag(prefix, name)} must be 0 or more, got {value}")


def flag(*path: str) -> str:
    """The command-line spelling of a field: ("collect", "unit_episodes") -> collect.unit-episodes."""
    return ".".join(part.replace("_", "-") for part in path if part)


def leaves(config: Any, *path: str) -> dict[str, tuple[str, Any]]:
    """All fields as one table: flag -> (kind, value). Overrides stand under the section that holds them."""
    found: dict[str, tuple[str, Any]] = {}
    for item in dataclasses.fields(config):
        value, kind = getattr(config, item.name), item.metadata.get("kind")
        if dataclasses.is_dataclass(value):
            found |= leaves(value, *path, item.name)
        elif kind == "overrides":
            found |= {
                flag(*path, name): ("extent" if name == EXTENT_OVERRIDE else "bits", one)
                for name, one in sorted(value.items())
            }
        else:
            found[flag(*path, item.name)] = (item.metadata["kind"], value)
    return found


def of_kind(config: Any, *kinds: str) -> dict[str, Any]:
    """The fields of these kinds by flag: what a manifest records, what two runs must share."""
    return {name: value for name, (kind, value) in leaves(config).items() if kind in kinds}


def with_overrides(config: C, values: Mapping[str, Any]) -> C:
    """The config with these fields replaced; keys are flags ("evolve.init-sigma")."""
    for name, value in values.items():
        section_name, _, leaf = name.rpartition(".")
        leaf = leaf.replace("-", "_")
        section = getattr(config, section_name, None)
        if not dataclasses.is_dataclass(section) or leaf not in {item.name for item in dataclasses.fields(section)}:
            raise UserError(f"the config has no field {name}: --help-all lists all fields")
        changed = dataclasses.replace(section, **{leaf: value})  # type: ignore[type-var]
        config = dataclasses.replace(config, **{section_name: changed})  # type: ignore[type-var]
    return config


def parse_value(config: Any, name: str, text: str) -> Any:
    """The value that a field named by its flag gets from a word on the command line."""
    section_name, _, leaf = name.rpartition(".")
    section = getattr(config, section_name, None)
    hints = get_type_hints(type(section)) if dataclasses.is_dataclass(section) else {}
    hint = hints.get(leaf.replace("-", "_"))
    if hint is None:
        raise UserError(f"the config has no field {name}: --help-all lists all fields")
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise UserError(f"--{name} must be one of {', '.join(get_args(hint))}, got {text}")
        return text
    if hint is bool:
        if text not in ("True", "False"):
            raise UserError(f"--{name} must be True or False, got {text}")
        return text == "True"
    try:
        return hint(text)
    except ValueError:
        raise UserError(f"--{name} must be {'an integer' if hint is int else 'a number'}, got {text}") from None


def extended(frozen: C, wanted: C, done: Callable[[], dict[str, int]] = dict) -> C:
    """`wanted`, if a run frozen with `frozen` can continue with it; otherwise a UserError with both values.

    An extent may fall as far as `done` says; extents that `done` does not list may only grow.
    """
    before, after = leaves(frozen), leaves(wanted)
    for name in dict.fromkeys([*before, *after]):
        absent = ("", None)
        (kind, value), (new_kind, new) = before.get(name, absent), after.get(name, absent)
        kind = kind or new_kind
        if kind == "bits" and new != value:
            raise UserError(
                f"this run was frozen with --{name} {value}, not {new}: remove the flag, or start another run"
                " (--base reuses the stages of this one)"
            )
        if kind == "extent" and None not in (value, new) and new < value:
            least = min(value, done().get(name, value))
            if new < least:
                raise UserError(
                    f"--{name} must be {least} or more, since this run has come so far, got {new}; or start another"
                    " run (--base reuses the stages of this one)"
                )
    return wanted


def without_auto(config: C, frozen: C | None, fast: Callable[[str], str]) -> C:
    """The config with each precision "auto" replaced by the frozen one, or by what is fast on the section's device."""
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        section = getattr(config, item.name)
        if getattr(section, "precision", "") == "auto":
            device = getattr(section, "device", "cpu")
            value = getattr(frozen, item.name).precision if frozen else fast(device)
            section = dataclasses.replace(section, precision=value)
            config = dataclasses.replace(config, **{item.name: section})  # type: ignore[type-var]
    return config


def to_dict(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)


def from_dict(values: Any, kind: type[T], place: str = "config") -> T:
    """The inverse of to_dict. A missing field has its default; raises `Wrong` for unknown ones and other types."""
    schemas.mapping(schemas.plain)(values, place)
    hints = get_type_hints(kind)
    unknown = sorted(values.keys() - hints.keys())
    if unknown:
        raise schemas.Wrong(f"{place}.{unknown[0][:40]} is unknown")
    found = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            value = from_dict(value, hints[name], f"{place}.{name}")  # type: ignore[arg-type]
        elif schema := _schema_of(hints[name]):
            schema(value, f"{place}.{name}")
        found[name] = value
    return kind(**found)


SCHEMAS = {
    int: schemas.integer(-LARGEST, LARGEST),
    float: schemas.number(-LARGEST, LARGEST),
    bool: schemas.boolean,
    str: schemas.text(longest=2_000),
}


def check_types(config: Any, *path: str) -> None:
    """Raise a UserError for a value of another type than its field, for NaN and infinity, and for huge numbers."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            check_types(value, *path, item.name)
        elif schema := _schema_of(get_type_hints(type(config))[item.name]):
            name = f"--{flag(*path, item.name)}"
            if type(value) in (int, float) and not abs(value) <= LARGEST:  # also NaN
                raise UserError(f"{name} must be a finite number of at most {LARGEST}, got {value}")
            try:
                schema(value, name)
            except schemas.Wrong as wrong:
                raise UserError(str(wrong)) from None


def _schema_of(hint: Any) -> schemas.Schema | None:
    if get_origin(hint) is Literal:
        return schemas.one_of(*get_args(hint))
    return schemas.mapping(schemas.plain) if get_origin(hint) is dict else SCHEMAS.get(hint)
