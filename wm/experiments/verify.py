"""Reads all files of a run and verifies them: seals, schemas, hashes in manifests and names, and the data's footers."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wm.agents.artifacts import load_mean
from wm.agents.unpack import read_agent
from wm.errors import UserError
from wm.experiments import baselines
from wm.experiments.rounds import row_of
from wm.runs.checkpoints import verify_checkpoint
from wm.runs.clock import read_seconds
from wm.runs.cures import remake
from wm.runs.curves import read_curves
from wm.runs.lease import read_lease
from wm.runs.manifest import load_manifest
from wm.runs.reader import Damaged, read, unpack
from wm.runs.run import CONFIG, Run, open_existing, read_config
from wm.runs.status import stage_statuses
from wm.runs.storage import Storage, open_storage, sha256
from wm.schemas import mapping, plain
from wm.stages import score, sharding

# Files that no result depends on: the project writes them and does not read them.
OUTPUTS = re.compile(
    r".*/events\.out\.tfevents\.[^/]*|.*/pictures/[^/]*|films/[^/]*|[^/]*\.html|rounds\.json|sweep/table\.\w+|std(out|err)"
)


@dataclass
class Verification:
    files: int = 0  # that were read and verified
    bytes: int = 0
    outputs: int = 0  # files that no result depends on, which have no hash
    unknown: list[str] = field(default_factory=list)  # files that are none of a run
    problems: list[str] = field(default_factory=list)  # one line each


def verify(run: Run) -> Verification:
    """All files of the run, of the runs in its folder (rounds, trials) and of its bases."""
    found = Verification()
    for key in run.storage.sizes():
        folder, _, name = key.rpartition("/")
        if name == "config.json":
            uri = f"{run.uri}/{folder}" if folder else run.uri
            _attempt(found, partial(_verify_at, uri, found))
    if run.base is not None:
        base = verify(run.base)
        found.files, found.bytes, found.outputs = (
            found.files + base.files,
            found.bytes + base.bytes,
            found.outputs + base.outputs,
        )
        found.unknown += base.unknown
        found.problems += base.problems
    return found


def _attempt(found: Verification, check: Callable[[], object]) -> None:
    """Run a check and note its error."""
    try:
        check()
    except UserError as error:
        if str(error) not in found.problems:
            found.problems.append(str(error))


def _verify_at(uri: str, found: Verification) -> None:
    _verify_one(open_existing(uri), found)


def _verify_one(run: Run, found: Verification) -> None:
    storage, sizes = run.storage, run.storage.sizes()
    inner = [f"{key.rpartition('/')[0]}/" for key in sizes if re.fullmatch(r".+/config\.json", key)]
    known = Known(storage)
    own = [key for key in sizes if not any(key.startswith(prefix) for prefix in inner)]
    for key in own:
        if re.fullmatch(r".+/manifest-[0-9]{10}\.json", key):
            _attempt(found, partial(known.add_manifest, key))
        elif sharding.is_record(key):
            _attempt(found, partial(known.add_record, key))
    for key in own:
        check = _check_of(key, run, known)
        if check is not None:
            _attempt(found, check)
            found.files, found.bytes = found.files + 1, found.bytes + sizes[key]
        elif OUTPUTS.fullmatch(key):
            found.outputs += 1
        else:
            found.unknown.append(f"{storage.uri}/{key}")
    for key in known.hashes.keys() - sizes.keys():
        found.problems.append(f"{storage.uri}/{key} is missing: {known.cures[key]}")
    if not found.problems:
        _attempt(found, lambda: stage_statuses(run))  # that the stages fit together


class Known:
    """What manifests and records say about files: hashes, and the lengths of episodes in shards."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self.hashes: dict[str, str] = {}
        self.lengths: dict[str, list[int]] = {}
        self.cures: dict[str, str] = {}

    def add_manifest(self, key: str) -> None:
        manifest = load_manifest(self.storage, key)
        for key, digest in manifest.content.get("files", {}).items():
            self.hashes[key] = digest
            self.cures[key] = f"restore it, or {manifest.cure(key)}"
        for shard in manifest.content.get("shards", []):
            self._add_shard(shard, manifest.stage)

    def add_record(self, key: str) -> None:
        record = sharding.read_record(self.storage, key)
        if record is not None:
            self._add_shard(record, key.partition("/")[0])

    def _add_shard(self, shard: dict[str, Any], stage: str) -> None:
        key = shard["key"]
        self.hashes[key], self.lengths[key] = shard["sha256"], shard["lengths"]
        self.cures[key] = remake(self.storage, stage)


def _check_of(key: str, run: Run, known: Known) -> Callable[[], object] | None:
    """The check of this file, or None if the project does not read it."""
    storage, name = run.storage, key.rpartition("/")[2]
    if CONFIG.fullmatch(key):
        return lambda: read_config(storage, key)
    if key in known.hashes:
        return lambda: _verify_hash(storage, key, known)
    if re.fullmatch(r".+/manifest-[0-9]{10}\.json", key):
        return lambda: load_manifest(storage, key)
    if sharding.is_record(key):
        return lambda: sharding.read_record(storage, key)
    if score.is_record(key):
        return lambda: score.read_record(storage, key)
    if re.fullmatch(r".+/checkpoints/(step|best)-[0-9]{10}-[0-9a-f]{12}\.safetensors", key):
        return lambda: verify_checkpoint(storage, key)
    if match := re.fullmatch(r"(evolve/[0-9a-f]{12})/means/([0-9]{6})\.safetensors", key):
        return lambda: _verify_mean(storage, match[1], int(match[2]))
    if re.fullmatch(r".+-[0-9a-f]{12}\.safetensors", key):
        return lambda: _verify_named(storage, key)
    others: dict[str, Callable[[], object]] = {
        "seconds.json": lambda: read_seconds(storage, key),
        "metrics.jsonl": lambda: read_curves(storage, key),
        "round.json": lambda: row_of(run),
        baselines.KEY: lambda: baselines.stored(run),
        "agent.json": lambda: read_agent(storage),
    }
    if name in others:
        return others[name]
    if re.fullmatch(r"lease/[0-9]{4,15}\.json", key):
        return lambda: read_lease(storage, key)
    if key == "sweep/table.json":
        return lambda: read(open_storage(f"{run.uri}/sweep"), name, mapping(plain), "delete it and run the sweep again")
    if re.fullmatch(r"submissions/[0-9]{4,15}\.json", key):
        return lambda: read(storage, key, mapping(plain), "delete it and run the same job again")
    return None


def _verify_hash(storage: Storage, key: str, known: Known) -> None:
    data, file = storage.get(key) or b"", f"{storage.uri}/{key}"
    if sha256(data) != known.hashes[key]:
        raise Damaged(file, "its SHA-256 differs", known.cures[key])
    if key in known.lengths:
        _verify_footer(data, file, known.lengths[key], known.cures[key])
    else:
        unpack(data, file, known.cures[key])


def _verify_footer(data: bytes, file: str, lengths: list[int], cure: str) -> None:
    """One row group for each episode, with as many rows as steps."""
    try:
        footer = pq.ParquetFile(io.BytesIO(data)).metadata
    except (pa.ArrowException, OSError):
        raise Damaged(file, "its footer can't be read", cure) from None
    if [footer.row_group(group).num_rows for group in range(footer.num_row_groups)] != lengths:
        raise Damaged(file, "it holds other episodes than its record says", cure)


def _verify_named(storage: Storage, key: str) -> None:
    """A file with its hash in its name which no manifest names, from a job that was killed."""
    if sha256(storage.get(key) or b"")[:12] != key.removesuffix(".safetensors")[-12:]:
        raise Damaged(f"{storage.uri}/{key}", "its SHA-256 differs", "delete it")


def _verify_mean(storage: Storage, folder: str, generation: int) -> None:
    for row in read_curves(storage, f"{folder}/metrics.jsonl"):
        if row.get("generation") == generation:
            load_mean(storage, folder, row)
