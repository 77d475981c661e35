"""A stage that is a map over shards: workers write them, the driver records them, a manifest closes the list.

Beside each shard lies its record (key, hash, lengths), written after it: a shard counts once it has one.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any

from wm.pool import Pool, Progress, Work
from wm.runs.datasets import shards_of
from wm.runs.run import Manifest, Run, Stage
from wm.runs.storage import sha256, to_json

log = logging.getLogger(__name__)


def make_shards(run: Run, stage: Stage, work: Work, pool: Pool, count: int) -> list[dict[str, Any]]:
    """The records of shards 0 to count - 1; only those that have none yet are made."""
    records = {unit: record for unit, record in _records(run, stage.folder).items() if unit < count}
    if records:
        log.info("%s: %d of %d shards are there already", stage.name, len(records), count)

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
    """Make again the shards of a complete stage that somebody deleted: the same bytes, so the manifest holds."""
    if manifest.storage.uri != run.uri:
        return  # a base's data is its own run's business
    sizes = run.storage.sizes(stage.folder)
    lost = [unit for unit, shard in enumerate(shards_of(manifest)) if sizes.get(shard.key) != shard.bytes]
    if not lost:
        return
    log.warning("%s: %d shards are missing or damaged and are made again", stage.name, len(lost))
    with pool.crew(work) as crew:
        for unit, record in crew.map(lost):
            if record["sha256"] != manifest.content["shards"][unit]["sha256"]:
                log.warning("%s came out otherwise than before (another processor or version?)", record["key"])


def record(key: str, data: bytes, lengths: Sequence[int], **more: Any) -> dict[str, Any]:
    """What the manifest will say of a shard."""
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
