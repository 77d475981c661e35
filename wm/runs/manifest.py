"""A manifest: the result of a stage, its inputs and config, and the hashes of all files that it names."""

import json
from dataclasses import dataclass, field
from typing import Any

from wm.config.schema import FORMAT
from wm.errors import UserError
from wm.runs.storage import Storage, sha256, to_json


@dataclass(frozen=True)
class Manifest:
    stage: str
    extent: int  # how far the stage got
    config: dict[str, Any]  # the frozen fields that affect its content
    inputs: dict[str, str]  # stage -> digest
    content: dict[str, Any]  # keys and hashes of its files
    metrics: dict[str, Any]
    made: dict[str, Any]  # versions, processor, time, seconds
    storage: Storage = field(compare=False, repr=False)  # of the run that made it: this run or a base
    digest: str = field(default="", compare=False)  # of stage and content only: the same work gives the same digest

    def read(self, key: str) -> bytes:
        """A file that the manifest names, checked against its hash."""
        data = self.storage.get(key)
        expected = self.content["files"][key]
        if data is None or sha256(data) != expected:
            state = "is missing" if data is None else "is damaged"
            raise UserError(
                f"{self.storage.uri}/{key} {state}: restore it, or delete the stage's folder and run the stage again"
            )
        return data


def load_manifest(storage: Storage, key: str) -> Manifest:
    data = storage.get(key)
    assert data is not None, key
    try:
        values = json.loads(data)
        if values.pop("format") != FORMAT:
            raise UserError(f"{storage.uri}/{key} was made by another version of this project: use that version")
        # Digests are those of runs from before shards had a folder of their own.
        digest = sha256(to_json([values["stage"], values["content"]]).replace(b"/shards/", b"/"))
        return Manifest(**values, storage=storage, digest=digest)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{storage.uri}/{key} is not a valid manifest: delete it and run the same command again"
        ) from None
