"""The curves of a stage, metrics.jsonl: one JSON object for each evaluation or generation."""

from collections.abc import Mapping, Sequence
from typing import Any

from wm.runs.cures import remake
from wm.runs.reader import sealed_rows, unsealed_rows
from wm.runs.storage import Storage
from wm.schemas import HASH, Wrong, integer, mapping, measured, plain, sequence

# All others are numbers, lists of numbers, or true.
SCHEMAS = {
    "step": integer(),
    "generation": integer(1),
    "env_steps": integer(),
    "theta_sha256": HASH,
    "tracks": sequence(integer()),
    "spread": sequence(plain),
    "validation_scores": sequence(measured),
}


def write_curves(storage: Storage, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    storage.put(key, sealed_rows(rows, key))


def read_curves(storage: Storage, key: str) -> list[dict[str, Any]]:
    """The rows; empty if there is no file."""
    data = storage.get(key)
    folder = key.rpartition("/")[0]
    cure = remake(storage, key.partition("/")[0], f"delete it and the manifests in {folder},")
    return [] if data is None else unsealed_rows(data, storage, key, _row, cure)


def _row(values: Any, place: str) -> None:
    mapping(plain)(values, place)
    if not {"step", "generation"} & values.keys():
        raise Wrong("a row has neither step nor generation")
    for name, value in values.items():
        if name in SCHEMAS:
            SCHEMAS[name](value, name)
        elif isinstance(value, list):
            sequence(measured)(value, name)
        elif value is not True:
            measured(value, name)
