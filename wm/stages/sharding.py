"""Stages that map over shards: workers write them, the driver records them, a manifest completes the list.

Shards lie in a folder of their own, which any tool that reads Parquet opens as one data set; records lie next to it.

A shard's record (key, hash, lengths) is written after the shard, so a shard counts once it has a record.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any

from wm.pool import Pool, Progress, Work
from wm.runs.datasets import shards_of
from wm.runs.manifest import Manifest
from wm.runs.run import Run, Stage
from wm.runs.storage import sha256, to_json

log = logging.getLogger(__name__)


def make_shards(run: Run, stage: Stage, work: Work, pool: Pool, count: int) -> list[dict[str, Any]]:
    """The records of shards 0 to count - 1. Only missing shards are made."""
    records = {unit: record for unit, record in _records(run, stage.folder).items() if unit < count}
    if records:
        log.info("%s: %d of %d shards already exist", stage.name, len(records), count)

    def tell() -> None:
        frames = sum(sum(record["lengths"]) for record in records.values())
        stage.tell(Progress(stage.name, len(records), count, "shards", {"frames": frames}))

    tell()
    with pool.crew(work) as crew:
        for unit, record in crew.map([unit for unit in range(count) if unit not in records]):
            run.storage.commit(stage.key(f"{unit:06d}.json"), to_json(record))
            records[unit] = record
            tell()
    return [records[unit] for unit in range(count)]


def restore(manifest: Manifest, run: Run, stage: Stage, work: Work, pool: Pool) -> None:
    """Make deleted shards of a complete stage again, with the same bytes."""
    if manifest.storage.uri != run.uri:
        return  # a base's data is restored by its own run
    sizes = run.storage.sizes(stage.folder)
    lost = [unit for unit, shard in enumerate(shards_of(manifest)) if sizes.get(shard.key) != shard.bytes]
    if not lost:
        return
    log.warning("%s: making %d missing or damaged shards again", stage.name, len(lost))
    with pool.crew(work) as crew:
        for unit, record in crew.map(lost):
            if record["sha256"] != manifest.content["shards"][unit]["sha256"]:
                log.warning("%s differs from the original (another processor or version?)", record["key"])


def folder_of_shards(stage: Stage) -> str:
    """`collect/shards`, or where the earlier shards of this stage are: old runs have them next to their records."""
    made = stage.manifest()
    shards = shards_of(made) if made else []
    return shards[0].key.rpartition("/")[0] if shards else stage.key("shards")


def record(key: str, data: bytes, lengths: Sequence[int], **more: Any) -> dict[str, Any]:
    """What the manifest records about a shard."""
    return {"key": key, "sha256": sha256(data), "bytes": len(data), "lengths": list(lengths), **more}


def _records(run: Run, folder: str) -> dict[int, dict[str, Any]]:
    sizes = run.storage.sizes(folder)
    found = {}
    for key in sizes:
        name = key.rpartition("/")[2].removesuffix(".json")
        if key == f"{folder}/{name}.json" and name.isdigit():
            record = json.loads(run.storage.get(key) or b"{}")
            if sizes.get(record["key"]) == record["bytes"]:
                found[int(name)] = record
    return found
