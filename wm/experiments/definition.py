"""What a search is: the fields, their spaces, and how they are searched. Stored in the search's folder.

search.json   the spaces and the searcher; frozen
size.json     how many configurations and seeds; may grow
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from wm.config.schema import FORMAT, Config
from wm.errors import UserError
from wm.experiments.searchers import KINDS, Kind, grid, require
from wm.experiments.spaces import Space
from wm.runs.reader import check_format, read, sealed
from wm.runs.storage import Storage
from wm.schemas import Wrong, boolean, integer, number, one_of, record, sequence, text

SEARCH, SIZE = "search.json", "size.json"
CURE = "restore it, or start another search"


def value_schema(value: Any, place: str) -> None:
    """A value of a field: a number, a text, or true or false."""
    if type(value) is bool:
        return
    (text(longest=1000) if type(value) is str else number())(value, place)


SPACE = record(
    {
        "field": text(r"[a-z]+\.[a-z0-9-]+"),
        "choices": sequence(value_schema),
        "low": number(),
        "high": number(),
        "log": boolean,
        "whole": boolean,
    }
)
DEFINITION = record(
    {
        "format": integer(),
        "spaces": sequence(SPACE),
        "searcher": one_of(*KINDS),
        "stop_early": boolean,
    }
)
COUNTS = record({"trials": integer(1), "seeds": integer(1)})


@dataclass(frozen=True)
class Definition:
    """What is searched and how. `trials` and `seeds` may grow later."""

    spaces: tuple[Space, ...]
    kind: Kind = "random"
    trials: int = 0
    seeds: int = 1
    stop_early: bool = False

    def check(self, config: Config) -> "Definition":
        """Itself with the number of trials of a grid, or a UserError."""
        require(self.kind)
        if self.seeds < 1:
            raise UserError(f"--seeds must be 1 or more, got {self.seeds}")
        if self.kind == "grid":
            size = len(grid(self.spaces))
            if self.trials not in (0, size):
                raise UserError(f"--trials must be {size} for this grid, got {self.trials}: remove it, or use another")
            return replace(self, trials=size)
        if self.trials < 1:
            raise UserError(f"--trials must be 1 or more, got {self.trials}")
        if self.stop_early and config.evolve.validation_episodes < 2:
            raise UserError("--stop-early needs to know the errors of validations: use --evolve.validation-episodes 2")
        return self

    def to_dict(self) -> dict[str, Any]:
        return {"spaces": [space.to_dict() for space in self.spaces], "searcher": self.kind} | {
            "stop_early": self.stop_early
        }

    @property
    def fields(self) -> list[str]:
        return [space.field for space in self.spaces]


def read_definition(storage: Storage) -> Definition | None:
    """The definition of the search in this storage, or None."""
    found = read(storage, SEARCH, DEFINITION, CURE)
    if found is None:
        return None
    check_format(found["format"], f"{storage.uri}/{SEARCH}", "start another search")
    size = read(storage, SIZE, COUNTS, "delete it and give --trials and --seeds") or {}
    spaces = tuple(Space(**one | {"choices": tuple(one["choices"])}) for one in found["spaces"])
    return Definition(spaces, found["searcher"], size.get("trials", 0), size.get("seeds", 1), found["stop_early"])


def define(storage: Storage, definition: Definition) -> None:
    """Freeze what is searched; a UserError if another search is there already."""
    if not storage.put_new(SEARCH, sealed({"format": FORMAT} | definition.to_dict(), SEARCH)):
        before = read_definition(storage)
        assert before is not None, SEARCH
        for flag, theirs, ours in (
            ("--search", before.spaces, definition.spaces),
            ("--searcher", before.kind, definition.kind),
            ("--stop-early", before.stop_early, definition.stop_early),
        ):
            if theirs != ours:
                raise UserError(f"{storage.uri} was started with another {flag}: use the same, or another --run")
    storage.put(SIZE, sealed({"trials": definition.trials, "seeds": definition.seeds}, SIZE))


def proposal_schema(spaces: Sequence[Space]) -> Any:
    """That of the values of one trial."""

    def within(space: Space) -> Any:
        def check(value: Any, place: str) -> None:
            value_schema(value, place)
            if not space.choices and type(value) in (bool, str):
                raise Wrong(f"{place} must be a number")
            if not space.contains(value):
                raise Wrong(f"{place} is not in its space")

        return check

    return record({space.field: within(space) for space in spaces})
