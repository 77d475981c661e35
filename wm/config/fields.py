"""Three kinds of field that a config is made of, and what follows from a field's kind:

bits     changes results; frozen by the first stage of a run
extent   how far to go; may change, but not to less than is done, so that a finished run can be taken further
free     changes nothing but speed and comfort; never frozen
"""

import dataclasses
from collections.abc import Callable
from dataclasses import field
from typing import Any, TypeVar, get_type_hints

from wm.errors import UserError

C = TypeVar("C")


def bits(default: Any) -> Any:
    return field(default=default, metadata={"kind": "bits"})


def extent(default: int) -> Any:
    return field(default=default, metadata={"kind": "extent"})


def free(default: Any) -> Any:
    return field(default=default, metadata={"kind": "free"})


def positive(section: Any, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if not value > 0:  # also refuses NaN
            raise UserError(f"--{flag(prefix, name)} {value} has to be above 0")


def flag(*path: str) -> str:
    """The command-line spelling of a field: ("collect", "unit_episodes") -> collect.unit-episodes."""
    return ".".join(part.replace("_", "-") for part in path if part)


def leaves(config: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], tuple[str, Any]]:
    """Every field, flat: path -> (kind, value)."""
    found: dict[tuple[str, ...], tuple[str, Any]] = {}
    for item in dataclasses.fields(config):
        value, where = getattr(config, item.name), (*path, item.name)
        if dataclasses.is_dataclass(value):
            found |= leaves(value, where)
        else:
            found[where] = (item.metadata["kind"], value)
    return found


def of_kind(config: Any, *kinds: str) -> dict[str, Any]:
    """The fields of these kinds under their flags: what a manifest records, what two runs must share."""
    return {flag(*path): value for path, (kind, value) in leaves(config).items() if kind in kinds}


def grown(frozen: C, wanted: C, done: Callable[[], dict[str, int]] = dict) -> C:
    """`wanted`, if a run frozen with `frozen` may go on with it; else the Mistake that names both values.

    An extent may fall as far as what is `done` of it; where nothing is said of that, it may only grow.
    """
    before, after = leaves(frozen), leaves(wanted)
    for path, (kind, value) in before.items():
        new = after[path][1]
        if kind == "bits" and new != value:
            raise UserError(
                f"this run was frozen with --{flag(*path)} {value}, not {new}: leave the flag out, or start another run"
                " (--base takes over what this one made)"
            )
        if kind == "extent" and new < value and new < (least := min(value, done().get(flag(*path), value))):
            raise UserError(
                f"--{flag(*path)} {new} is less than this run has come to: say {least} or more, or start another run"
                " (--base takes over what this one made)"
            )
    return wanted


def to_dict(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any], kind: Any) -> Any:
    """The inverse of to_dict.

    A field that came later has its default: what was done before there was a choice. One that this version doesn't
    know can't be guessed at.
    """
    hints = get_type_hints(kind)
    odd = sorted(values.keys() - hints.keys())
    if odd:
        raise UserError(
            f"the run's config has other fields than this version knows ({', '.join(odd)}): use its own version"
        )
    return kind(
        **{
            name: from_dict(value, hints[name]) if dataclasses.is_dataclass(hints[name]) else value
            for name, value in values.items()
        }
    )
