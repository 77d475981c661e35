"""Schemas of JSON values: what type a value must have and within which bounds.

A schema is a function of (value, place) that raises `Wrong` for the first violation. `place` names the value in the
message, such as `shards[3].bytes`.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Schema = Callable[[Any, str], None]

LONGEST_TEXT = 100_000
WHOLE = 2**53  # integers that every reader of JSON represents exactly


class Wrong(Exception):
    """A value that its schema does not allow; the message says where and why."""


def integer(low: int = 0, high: int = WHOLE) -> Schema:
    def check(value: Any, place: str) -> None:
        if type(value) is not int or not low <= value <= high:
            raise Wrong(f"{place} must be an integer in [{low}, {high}], got {shown(value)}")

    return check


def number(low: float = -math.inf, high: float = math.inf) -> Schema:
    """A finite number."""

    def check(value: Any, place: str) -> None:
        if type(value) not in (int, float) or not (abs(value) < math.inf and low <= value <= high):
            within = "" if (low, high) == (-math.inf, math.inf) else f" in [{low:g}, {high:g}]"
            raise Wrong(f"{place} must be a finite number{within}, got {shown(value)}")

    return check


def measured(value: Any, place: str) -> None:
    """A number that was measured: it may be infinite or NaN."""
    if type(value) not in (int, float) or (type(value) is int and abs(value) > 2**63):
        raise Wrong(f"{place} must be a number, got {shown(value)}")


def text(pattern: str = "", longest: int = LONGEST_TEXT) -> Schema:
    def check(value: Any, place: str) -> None:
        if type(value) is not str or len(value) > longest or "\0" in value:
            raise Wrong(f"{place} must be a text, got {shown(value)}")
        if pattern and not re.fullmatch(pattern, value, re.ASCII):
            raise Wrong(f"{place} must look like {pattern}, got {shown(value)}")

    return check


def boolean(value: Any, place: str) -> None:
    if type(value) is not bool:
        raise Wrong(f"{place} must be true or false, got {shown(value)}")


def one_of(*values: Any) -> Schema:
    def check(value: Any, place: str) -> None:
        if not any(type(value) is type(one) and value == one for one in values):
            raise Wrong(f"{place} must be {' or '.join(map(str, values))}, got {shown(value)}")

    return check


def optional(schema: Schema) -> Schema:
    """The schema, or null."""

    def check(value: Any, place: str) -> None:
        if value is not None:
            schema(value, place)

    return check


def sequence(schema: Schema) -> Schema:
    def check(value: Any, place: str) -> None:
        if type(value) is not list:
            raise Wrong(f"{place} must be a list, got {shown(value)}")
        for index, one in enumerate(value):
            schema(one, f"{place}[{index}]")

    return check


def mapping(schema: Schema, key: Schema | None = None) -> Schema:
    """An object with any keys."""

    def check(value: Any, place: str) -> None:
        if type(value) is not dict:
            raise Wrong(f"{place} must be an object, got {shown(value)}")
        for name, one in value.items():
            if key is not None:
                key(name, f"a key of {place}")
            schema(one, f"{place}.{name}" if place else name)

    return check


def record(required: Mapping[str, Schema], more: Mapping[str, Schema] | None = None) -> Schema:
    """An object with these keys; those of `more` may be missing."""
    schemas = {**required, **(more or {})}

    def check(value: Any, place: str) -> None:
        if type(value) is not dict:
            raise Wrong(f"{place or 'it'} must be an object, got {shown(value)}")
        prefix = f"{place}." if place else ""
        for name in required:
            if name not in value:
                raise Wrong(f"{prefix}{name} is missing")
        for name, one in value.items():
            if name not in schemas:
                raise Wrong(f"{prefix}{name[:40]} is unknown")
            schemas[name](one, prefix + name)

    return check


def plain(value: Any, place: str, depth: int = 6) -> None:
    """Any JSON of limited depth. NaN and infinity are allowed: a metric may have no value."""
    if isinstance(value, list | dict):
        if depth == 0:
            raise Wrong(f"{place} is nested too deeply")
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            plain(one, f"{place}.{name}", depth - 1)
    elif isinstance(value, str):
        text()(value, place)
    elif type(value) is int and abs(value) > 2**63:
        raise Wrong(f"{place} is too large")


def shown(value: Any) -> str:
    """The value in a message: short, and in one line."""
    found = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a very large integer"
    return found if len(found) <= 60 else f"{found[:57]}..."


HASH = text("[0-9a-f]{64}")
KEY = text(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*", longest=500)  # a path below the run
