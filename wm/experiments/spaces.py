"""The space of a search: the values that fields of the config may take, as a person types them.

evolve.sigma0=0.01..0.3 log        a range, uniform in the logarithm
evolve.population=8..64            a range of integers, both ends included
memory.hidden=64,128,256           choices
evolve.sigma0=0.01..0.3 log 4      four evenly spaced choices of a range, for a grid
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from wm.config.fields import leaves, parse_value, with_overrides
from wm.config.schema import Config
from wm.errors import UserError

SECTIONS = ("collect", "vision", "latents", "memory", "controller", "evolve")  # what decides a trial's validation
CHECKED = 4096  # combinations of values that are checked before anything starts
FORMS = "FIELD=LOW..HIGH [log] [POINTS] or FIELD=VALUE,VALUE,..."


@dataclass(frozen=True)
class Space:
    """The values of one field: choices or, without any, a range."""

    field: str  # a flag: evolve.sigma0
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False  # integers

    @property
    def numeric(self) -> bool:
        return not any(isinstance(choice, bool | str) for choice in self.choices)

    def at(self, share: float) -> Any:
        """The value at this share in [0, 1) of the space."""
        if self.choices:
            return self.choices[int(share * len(self.choices))]
        edge = 0.5 if self.whole else 0.0  # both ends are as likely as other integers
        low, high = self.low - edge, self.high + edge
        value = math.exp(math.log(low) + share * math.log(high / low)) if self.log else low + share * (high - low)
        return int(min(max(round(value), self.low), self.high)) if self.whole else float(f"{value:.6g}")

    def contains(self, value: Any) -> bool:
        return value in self.choices if self.choices else self.low <= value <= self.high

    def ends(self) -> tuple[Any, ...]:
        """All choices, or both ends of the range."""
        kind = int if self.whole else float
        return self.choices or (kind(self.low), kind(self.high))

    def to_dict(self) -> dict[str, Any]:
        return {"field": self.field, "choices": list(self.choices), "low": self.low, "high": self.high} | {
            "log": self.log,
            "whole": self.whole,
        }


def parse_spaces(words: Sequence[str], config: Config) -> list[Space]:
    """The spaces of --search words; a UserError for a field, a form or a value that is wrong."""
    spaces = [_parsed(word, config) for word in words]
    if not spaces:
        raise UserError(f"nothing to search: add --search {FORMS}")
    names = [space.field for space in spaces]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--search names {name} twice: list all of its values in one space")
    check_values(config, combinations(spaces))
    return spaces


def combinations(spaces: Sequence[Space]) -> Iterator[dict[str, Any]]:
    """All combinations of choices and ends of ranges."""
    for values in product(*(space.ends() for space in spaces)):
        yield dict(zip((space.field for space in spaces), values, strict=True))


def check_values(config: Config, candidates: Iterator[dict[str, Any]]) -> None:
    """Raise the config's own UserError for the first combination that it refuses."""
    for _, values in zip(range(CHECKED), candidates, strict=False):
        try:
            with_overrides(config, values).check()
        except UserError as error:
            raise UserError(f"{error} (in the combination {in_words(values)} of the search)") from None


def in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _parsed(word: str, config: Config) -> Space:
    name, equals, text = word.partition("=")
    name, text = name.strip().removeprefix("--"), text.strip()
    if not equals or not text:
        raise UserError(f"--search {word!r} is not a space: use {FORMS}")
    if name in ("seed", "evolve.seed"):
        raise UserError(f"--search can't vary {name}: --seeds N runs each trial with N seeds")
    if name.partition(".")[0] not in SECTIONS or name.rpartition(".")[2] in ("device", "init"):
        _must_exist(name, config)
        raise UserError(f"--search can't vary {name}: use fields of {', '.join(SECTIONS)} other than device and init")
    _must_exist(name, config)
    span = re.fullmatch(r"(\S+?)\.\.(\S+?)((?:\s+\w+)*)", text)
    if span:
        return _range(name, span[1], span[2], span[3].split(), config)
    choices = tuple(dict.fromkeys(parse_value(config, name, part.strip()) for part in text.split(",")))
    return Space(name, choices)


def _must_exist(name: str, config: Config) -> None:
    if name not in leaves(config):
        raise UserError(f"the config has no field {name}: --help-all lists all fields")


def _range(name: str, low: str, high: str, rest: list[str], config: Config) -> Space:
    first, last = (parse_value(config, name, part) for part in (low, high))
    if isinstance(first, bool | str):
        raise UserError(f"--search {name} has no range, since its values are no numbers: list them, as in {name}=A,B")
    if not first < last:
        raise UserError(f"--search {name} must have its lower end first, got {low}..{high}")
    log, rest = "log" in rest, [word for word in rest if word != "log"]
    if len(rest) > 1 or any(not word.isdigit() or int(word) < 2 for word in rest):
        raise UserError(
            f"--search {name} has {' '.join(rest)!r} after its range: use `log`, a number of points, or both"
        )
    if log and not first > 0:
        raise UserError(f"--search {name} is log, so its lower end must be above 0, got {low}")
    whole = isinstance(first, int)
    if not rest:
        return Space(name, (), first, last, log, whole)
    points = (np.geomspace if log else np.linspace)(first, last, int(rest[0]))
    kind: Any = (lambda value: round(float(value))) if whole else (lambda value: float(f"{value:.6g}"))
    return Space(name, tuple(dict.fromkeys(kind(point) for point in points)), log=log)
