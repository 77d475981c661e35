"""Properties that hold for any input and any interleaving: storage, leases, seals, shards and the order of frames."""

import json
import math
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from wm.errors import UserError
from wm.runs.lease import Lease
from wm.runs.reader import Damaged, sealed, sealed_rows, unsealed, unsealed_rows
from wm.runs.shards import DataSet, File, FrameStream, Shard, ShardWriter, latent_schema, vector_column
from wm.runs.storage import Folder, Storage, open_storage, sha256
from wm.schemas import mapping, plain

# Machines are busy: no deadline for an example. The examples are the same in each run.
settings.register_profile("wm", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.load_profile("wm")


@contextmanager
def folder() -> Iterator[str]:
    path = tempfile.mkdtemp()
    try:
        yield path
    finally:
        shutil.rmtree(path)


# Storage

KEYS = st.sampled_from(["a", "b/c", "b/d", "b/e/f", "manifest-0000000001.json"])
DATA = st.binary(max_size=20)


class StorageMachine(RuleBasedStateMachine):
    """Any sequence of calls leaves the storage like a dictionary."""

    uris: Callable[[], str]

    @initialize()
    def begin(self) -> None:
        self.storage, self.model = open_storage(type(self).uris()), dict[str, bytes]()

    @rule(key=KEYS, data=DATA)
    def put(self, key: str, data: bytes) -> None:
        self.storage.put(key, data)
        self.model[key] = data

    @rule(key=KEYS, data=DATA)
    def put_new(self, key: str, data: bytes) -> None:
        assert self.storage.put_new(key, data) == (key not in self.model)
        self.model.setdefault(key, data)

    @rule(key=KEYS, data=DATA)
    def commit(self, key: str, data: bytes) -> None:
        if self.model.get(key, data) == data:
            self.storage.commit(key, data)
            self.model[key] = data
        else:
            with pytest.raises(FileExistsError):
                self.storage.commit(key, data)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.storage.delete(key)
        self.model.pop(key, None)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        assert self.storage.get(key) == self.model.get(key)

    @rule(prefix=st.sampled_from(["", "b", "b/e"]))
    def sizes(self, prefix: str) -> None:
        below = {key: len(data) for key, data in self.model.items() if not prefix or key.startswith(prefix + "/")}
        assert self.storage.sizes(prefix) == below


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_storage_is_like_a_dictionary(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    number = iter(range(10_000))
    if kind == "s3":
        bucket = request.getfixturevalue("s3")
        uris = lambda: bucket("machine")  # noqa: E731
    else:
        uris = lambda: str(tmp_path / str(next(number)))  # noqa: E731
    machine = type("Machine", (StorageMachine,), {"uris": staticmethod(uris)})
    run_state_machine_as_test(machine, settings=settings(max_examples=15 if kind == "s3" else 40))


@given(st.lists(st.binary(min_size=1, max_size=8), min_size=2, max_size=8))
@settings(max_examples=25)
def test_one_of_many_that_write_a_new_key_wins(contents: list[bytes]) -> None:
    with folder() as path:
        barrier, won = threading.Barrier(len(contents)), list[bytes]()

        def write(data: bytes) -> None:
            storage = Folder(path)
            barrier.wait()
            if storage.put_new("key", data):
                won.append(data)

        threads = [threading.Thread(target=write, args=(data,)) for data in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert Folder(path).get("key") == won[0]


# Leases


class Turns:
    """Lets threads run one at a time, in the order of a schedule; each call of the storage is one turn."""

    def __init__(self, schedule: list[int]):
        self.schedule, self.waiting = iter(schedule), dict[int, threading.Semaphore]()
        self.back = threading.Semaphore(0)

    def pause(self) -> None:
        """Called by a thread: wait for its next turn."""
        mine = self.waiting[threading.get_ident()]
        self.back.release()
        mine.acquire()

    def run(self, works: list[Callable[[], None]]) -> None:
        threads, errors = [], list[BaseException]()

        def start(work: Callable[[], None]) -> None:
            self.waiting[threading.get_ident()] = threading.Semaphore(0)
            try:
                self.pause()
                work()
            except BaseException as error:
                errors.append(error)
            del self.waiting[threading.get_ident()]
            self.back.release()

        for work in works:
            threads.append(threading.Thread(target=start, args=(work,)))
            threads[-1].start()
            self.back.acquire()
        while self.waiting:
            ready = sorted(self.waiting)
            self.waiting[ready[next(self.schedule, 0) % len(ready)]].release()
            self.back.acquire()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]


def in_turns(storage: Storage, turns: Turns) -> Storage:
    """The storage, with a turn before each call."""
    for name in ("get", "put", "put_new", "sizes", "delete"):
        real = getattr(storage, name)

        def call(*args: Any, real: Any = real) -> Any:
            turns.pause()
            return real(*args)

        setattr(storage, name, call)
    return storage


@given(
    st.lists(st.sampled_from(["holds", "releases", "dies"]), min_size=2, max_size=4),
    st.lists(st.integers(0, 11), max_size=120),
    st.sampled_from([None, 1, 7, 9_999]),
)
@settings(max_examples=80)
def test_one_holder_remains_for_any_interleaving(ends: list[str], schedule: list[int], dead: int | None) -> None:
    """Several jobs try to take the lease of a dead job at the same time. A job that lost its lease notices."""
    with folder() as path:
        if dead is not None:
            gone = Lease(Folder(path))
            gone.mine = replace(gone.mine, began="long ago")
            assert gone._take(dead)
        turns, holding = Turns(schedule), list[Lease]()

        def job(end: str) -> None:
            lease = Lease(in_turns(Folder(path), turns))
            for _ in range(8):
                number, holder = lease._newest()
                if holder is not None and not lease._expired(holder):
                    return  # refused
                if end == "dies":
                    lease.mine = replace(lease.mine, began="died a moment ago")
                if lease._take(number + 1):
                    break
            else:
                return
            if end == "releases":
                lease.storage.delete(lease.key)
            elif end == "holds":
                holding.append(lease)

        turns.run([lambda end=end: job(end) for end in ends])  # type: ignore[misc]
        for lease in holding:
            lease.storage = Folder(path)
            lease._renew_once()
        assert sum(lease.lost is None for lease in holding) == bool(holding)


# Seals

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats()
    | st.text(max_size=10).filter(str.isprintable),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=6).filter(lambda name: name != "seal"), JSON, max_size=4)
ANY = mapping(plain)
HERE = Folder("/proc/nonexistent")


def same(one: Any, two: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)


@given(OBJECTS)
def test_a_sealed_file_gives_back_its_values(values: dict[str, Any]) -> None:
    assert same(unsealed(sealed(values, "it"), HERE, "it", lambda value, place: None, ""), values)


@given(OBJECTS, st.data())
@settings(max_examples=200)
def test_a_changed_byte_is_found_or_changes_nothing(values: dict[str, Any], data: st.DataObject) -> None:
    file = bytearray(sealed(values, "it"))
    at = data.draw(st.integers(0, len(file) - 1))
    file[at] = data.draw(st.integers(0, 255))
    with suppress(Damaged):
        assert same(unsealed(bytes(file), HERE, "it", lambda value, place: None, "cure"), values)


@given(OBJECTS)
def test_a_file_is_refused_under_another_name(values: dict[str, Any]) -> None:
    with pytest.raises(Damaged, match="does not match its seal"):
        unsealed(sealed(values, "collect/000000.json"), HERE, "collect/000001.json", ANY, "cure")


@given(st.lists(st.fixed_dictionaries({"step": st.integers(0, 99), "loss": st.floats()}), max_size=5), st.data())
def test_curves_can_lose_no_line(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    file = sealed_rows(rows, "it")
    assert same(unsealed_rows(file, HERE, "it", ANY, ""), rows)
    if rows:
        lines = file.splitlines(keepends=True)
        del lines[data.draw(st.integers(0, len(lines) - 1))]
        if lines:
            with pytest.raises(UserError):
                unsealed_rows(b"".join(lines), HERE, "it", ANY, "")


# Shards and the order of frames

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=12)


def data_set(lengths: list[int], shards: int) -> DataSet:
    """Episodes of these lengths in shards of about equal numbers; there are no files."""
    parts = [part for part in np.array_split(np.array(lengths), shards) if len(part)]
    files = [Shard(f"collect/{n:06d}.parquet", "a" * 64, 1, tuple(map(int, part))) for n, part in enumerate(parts)]
    return DataSet(File(Folder("/proc/nonexistent"), shard, "") for shard in files)


@given(LENGTHS, st.integers(1, 6))
def test_the_episodes_do_not_depend_on_how_they_are_split_into_shards(lengths: list[int], shards: int) -> None:
    data = data_set(lengths, shards)
    assert data.lengths.tolist() == lengths
    assert sum(sum(file.shard.lengths) for file in data.files) == sum(lengths)
    assert [file.shard.lengths[group] for file, group in data.episodes] == lengths


@given(LENGTHS, st.integers(1, 4), st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**32), st.integers(0, 30))
@settings(max_examples=60)
def test_batches_do_not_depend_on_where_the_stream_starts(
    lengths: list[int], shards: int, batch: int, window: int, seed: int, start: int
) -> None:
    def positions(at: int, count: int, shards: int) -> list[list[int]]:
        data = data_set(lengths, shards)
        stream = FrameStream(data, np.arange(len(lengths)), batch, seed, window)
        return [found.tolist() for found in islice(stream.positions(at), count)]

    epoch = math.ceil(sum(lengths) / batch)
    whole = positions(0, start + epoch + 1, shards)
    assert positions(start, 3, 1) == positions(0, start + 3, shards)[start:]
    seen = [position for found in whole for position in found]
    assert all(len(found) == batch for found in whole)
    assert sorted(seen[: sum(lengths)]) == list(range(sum(lengths)))  # each frame once in an epoch


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=25)
def test_a_shard_gives_back_its_episodes(lengths: list[int], z: int, actions: int) -> None:
    rng = np.random.default_rng(sum(lengths))
    writer, episodes = ShardWriter(latent_schema(["mu"], z, actions, {})), []
    for number, length in enumerate(lengths):
        mu, action = rng.random((length, z), np.float32), rng.random((length, actions), np.float32)
        episodes.append((mu, action))
        writer.add(
            {
                "episode": np.full(length, number),
                "step": np.arange(length, dtype=np.int32),
                "mu": vector_column(mu),
                "action": vector_column(action),
                "reward": rng.random(length),
                "terminated": np.zeros(length, bool),
                "truncated": np.zeros(length, bool),
            }
        )
    with folder() as path:
        file, storage = writer.finish(), Folder(path)
        storage.put("latents/000000.parquet", file)
        shard = Shard("latents/000000.parquet", sha256(file), len(file), tuple(lengths))
        data = DataSet([File(storage, shard, "cure")])
        data.verify()
        for number, (mu, action) in enumerate(episodes):
            found = data.read(number, ["mu", "action"])
            np.testing.assert_array_equal(found["mu"], mu)
            np.testing.assert_array_equal(found["action"], action)
