"""A manifest: the result of a stage, its inputs and config, and the hashes of all files that it names."""

import re
from dataclasses import dataclass, field
from typing import Any

from wm.config.schema import FORMAT
from wm.errors import UserError
from wm.runs.cures import remake
from wm.runs.reader import Damaged, check_format, parsed, unsealed
from wm.runs.stages import STAGES
from wm.runs.storage import Storage, sha256, to_json
from wm.schemas import (
    HASH,
    KEY,
    Schema,
    Wrong,
    boolean,
    integer,
    mapping,
    measured,
    number,
    one_of,
    plain,
    record,
    sequence,
    text,
)

EXTENT = integer(0, 10**10 - 1)  # ten digits in the names of files
EPISODE = record({"seed": integer(), "steps": integer(1), "score": measured, "terminated": boolean})
SHARD_FIELDS = {"key": KEY, "sha256": HASH, "bytes": integer(1), "lengths": sequence(integer(1))}
OPTIONAL_SHARD_FIELDS = {"episodes": sequence(EPISODE)}
SHARD = record(SHARD_FIELDS, OPTIONAL_SHARD_FIELDS)
# What each stage makes.
CONTENT = {
    "collect": record({"shards": sequence(SHARD)}, {"earlier": HASH}),
    "vision": record({"weights": KEY, "files": mapping(HASH, KEY)}, {"decodes": boolean}),
    "latents": record({"shards": sequence(SHARD)}, {"starts": KEY, "files": mapping(HASH, KEY)}),
    "memory": record({"weights": KEY, "files": mapping(HASH, KEY)}),
    "evolve": record({"theta": KEY, "files": mapping(HASH, KEY)}),
    "score": record({"episodes": sequence(EPISODE)}),
}
ROLES = ("weights", "theta", "starts")  # names of files in the content
# Metrics that others use. A stage that comes from an agent file has those of its card, if any.
COMPLETE = ("collect", "latents", "evolve", "score")
METRICS: dict[str, dict[str, Schema]] = {
    "collect": {"frames": integer(), "bytes": integer()},
    "vision": {"steps": integer(1), "device": text(longest=20)},
    "latents": {"frames": integer(), "bytes": integer()},
    "memory": {"steps": integer(1), "device": text(longest=20), "held_out_nll": measured, "nll_gaussian": measured},
    "evolve": {
        "env_steps": integer(),
        "sigma": number(0),
        "theta_sha256": HASH,
        "best_validation": measured,
        "best_validation_se": measured,
    },
    "score": {
        "score": measured,
        "std": measured,
        "se": measured,
        "episodes": integer(1),
        "first_seed": integer(),
        "env_steps": integer(),
    },
}
MADE = record(
    {
        "code": text(longest=200),
        "python": text(longest=50),
        "versions": mapping(text(longest=50)),
        "processor": text(longest=500),
        "cpus": integer(0, 10**7),
        "seconds": number(0),
        "at": text(longest=50),
    }
)


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
        if data is None or sha256(data) != self.content["files"][key]:
            if data is None:
                raise UserError(f"{self.storage.uri}/{key} is missing: restore it, or {self.cure(key)}")
            raise Damaged(f"{self.storage.uri}/{key}", "its SHA-256 differs", f"restore it, or {self.cure(key)}")
        return data

    def cure(self, key: str) -> str:
        """For a file that can't be restored: the stage is made again."""
        return remake(self.storage, self.stage, f"delete the folder {key.rpartition('/')[0]}")


def load_manifest(storage: Storage, key: str) -> Manifest:
    """The manifest in this file, with its seal and its schema checked."""
    stage, file = key.partition("/")[0], f"{storage.uri}/{key}"
    cure = remake(storage, stage)
    data = storage.get(key)
    if data is None:
        raise UserError(f"{file} has disappeared: run the same command again")
    version = found.get("format") if isinstance(found := parsed(data, file, cure), dict) else None
    check_format(version, file, "start another run")

    def schema(values: Any, place: str) -> None:
        _check(values, place, stage)
        if int(re.findall(r"(\d{10})\.json$", key)[0]) != values["extent"]:
            raise Wrong(f"its extent is {values['extent']}")

    values = unsealed(data, storage, key, schema, cure)
    del values["format"]
    return Manifest(**values, storage=storage, digest=digest_of(stage, values["content"]))


def digest_of(stage: str, content: dict[str, Any]) -> str:
    return sha256(to_json([stage, content]))


def _check(values: Any, place: str, stage: str) -> None:
    """The schema of a manifest in the folder of this stage."""
    if stage not in STAGES:
        raise Wrong(f"there is no stage {stage}")
    record(
        {
            "format": one_of(FORMAT),
            "stage": one_of(stage),
            "extent": EXTENT,
            "config": mapping(plain),
            "inputs": mapping(HASH),
            "content": CONTENT[stage],
            "metrics": mapping(plain),
            "made": MADE,
        }
    )(values, place)
    content, metrics = values["content"], values["metrics"]
    for role in ROLES:
        if role in content and content[role] not in content.get("files", {}):
            raise Wrong(f"content.files lacks the file of content.{role}")
    for shard in content.get("shards", []):
        if not shard["key"].startswith(f"{stage}/"):
            raise Wrong(f"the shard {shard['key'][:80]} is outside of the stage's folder")
    for name, schema in METRICS[stage].items():
        if name in metrics:
            schema(metrics[name], f"metrics.{name}")
        elif stage in COMPLETE and "agent" not in values["inputs"]:
            raise Wrong(f"metrics.{name} is missing")
