"""Stages that map over shards: workers write them, the driver records them, a manifest completes the list.

Shards lie in a folder of their own, which any tool that reads Parquet opens as one data set; records lie next to it.

A shard's record (key, hash, lengths) is written after the shard, so a shard counts once it has a record.
"""

import logging
import re
from collections.abc import Sequence
from typing import Any

from wm.pool import Pool, Progress, Work
from wm.runs.cures import remake
from wm.runs.datasets import shards_of
from wm.runs.manifest import OPTIONAL_SHARD_FIELDS, SHARD_FIELDS, Manifest
from wm.runs.reader import read, sealed
from wm.runs.run import Run, Stage
from wm.runs.storage import Storage, sha256
from wm.schemas import number, one_of, sequence
from wm.schemas import record as record_of

log = logging.getLogger(__name__)

FIRST = sequence(sequence(sequence(number())))  # (mu, logvar) of each episode's first frame


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
            key = stage.key(f"{unit:06d}.json")
            run.storage.commit(key, sealed(record, key))
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


def record(key: str, data: bytes, lengths: Sequence[int], **more: Any) -> dict[str, Any]:
    """What the manifest records about a shard."""
    return {"key": key, "sha256": sha256(data), "bytes": len(data), "lengths": list(lengths), **more}


def _records(run: Run, folder: str) -> dict[int, dict[str, Any]]:
    sizes, found = run.storage.sizes(folder), {}
    for key in sizes:
        record = read_record(run.storage, key) if is_record(key) and key.startswith(f"{folder}/") else None
        if record is not None and sizes.get(record["key"]) == record["bytes"]:
            found[int(key[-11:-5])] = record
    return found


def is_record(key: str) -> bool:
    """Whether this is the record of a shard."""
    return re.fullmatch(r"(collect|latents/[0-9a-f]{12})/[0-9]{6}\.json", key) is not None


def read_record(storage: Storage, key: str) -> dict[str, Any] | None:
    """The record of the shard of the same name."""
    stage, (folder, _, name) = key.partition("/")[0], key.removesuffix(".json").rpartition("/")
    its_key = one_of(f"{folder}/shards/{name}.parquet", f"{folder}/{name}.parquet")
    more = {**OPTIONAL_SHARD_FIELDS, **({"first": FIRST} if stage == "latents" else {})}
    return read(storage, key, record_of({**SHARD_FIELDS, "key": its_key}, more), remake(storage, stage))
