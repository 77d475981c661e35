"""Rollouts on disk: Parquet shards with a row per step and a row group per episode.

Any tool that reads Parquet reads them. Here they are written in one piece, checked against their
hashes before anything is made from them, and streamed in a shuffled order with bounded memory.
"""

import io
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wm.envs import FRAME
from wm.errors import UserError
from wm.runs.storage import Folder, Storage, sha256

PIXELS = int(np.prod(FRAME))


def rollout_schema(actions: int, about: dict[str, str]) -> pa.Schema:
    """Rollouts: what the agent saw, did and got."""
    return _schema([("frame", pa.binary(PIXELS))], actions, about)  # 64 x 64 x RGB, as it was when it acted


def latent_schema(names: Iterable[str], z: int, actions: int, about: dict[str, str]) -> pa.Schema:
    """The same steps as V sees them: mu, logvar, and what else is so named."""
    return _schema([(name, pa.list_(pa.float32(), z)) for name in names], actions, about)


def _schema(seen: list[tuple[str, pa.DataType]], actions: int, about: dict[str, str]) -> pa.Schema:
    fields = [
        ("episode", pa.int64()),
        ("step", pa.int32()),
        *seen,
        ("action", pa.list_(pa.float32(), actions)),
        ("reward", pa.float64()),  # of that action
        ("terminated", pa.bool_()),
        ("truncated", pa.bool_()),
    ]
    return pa.schema(fields, metadata=about)


class ShardWriter:
    """Collects episodes in memory and becomes the bytes of one Parquet file.

    The same rows give the same bytes (with the same pyarrow), so a hash names the content.
    """

    def __init__(self, schema: pa.Schema):
        self.schema, self.buffer = schema, io.BytesIO()
        self.writer = pq.ParquetWriter(
            self.buffer,
            schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=False,  # nothing in here repeats, but for constants that zstd shrinks to nothing
            write_page_checksum=True,
            data_page_size=1 << 22,
        )

    def add(self, columns: dict[str, Any]) -> None:
        """One episode, as one row group."""
        table = pa.table(columns, schema=self.schema)
        self.writer.write_table(table, row_group_size=len(table))

    def finish(self) -> bytes:
        self.writer.close()
        return self.buffer.getvalue()


def frame_column(frames: np.ndarray) -> pa.Array:
    """(T, 64, 64, 3) uint8 to a Parquet column, without a copy."""
    assert (frames.dtype, frames.shape[1:]) == (np.uint8, FRAME), (frames.dtype, frames.shape)
    flat = np.ascontiguousarray(frames)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(PIXELS), len(flat), [None, pa.py_buffer(flat)])


def vector_column(rows: np.ndarray) -> pa.Array:
    """(T, N) to a column of fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


def to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    """A column as one array: frames (T, 64, 64, 3), vectors (T, N), else (T,)."""
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if pa.types.is_fixed_size_binary(array.type):
        raw = np.frombuffer(array.buffers()[1], np.uint8)
        return raw[array.offset * PIXELS :][: len(array) * PIXELS].reshape(-1, *FRAME)
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1)
    return array.to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class Shard:
    """What a manifest says of one file."""

    key: str
    sha256: str
    bytes: int
    lengths: tuple[int, ...]  # steps of each of its episodes


class File(NamedTuple):
    """A shard where it lies, and the command that makes it again, should it be damaged."""

    storage: Storage
    shard: Shard
    cure: str

    @property
    def folder(self) -> str:
        return self.shard.key.rpartition("/")[0]

    def bad(self, what: str) -> UserError:
        return UserError(
            f"{self.storage.uri}/{self.shard.key} {what}: delete that file if it is there, then run `{self.cure}`"
        )


class DataSet:
    """Episodes spread over shards, each read by itself; nothing is kept in memory."""

    def __init__(self, files: Iterable[File]):
        self.files = tuple(files)
        self.episodes = [(file, group) for file in self.files for group in range(len(file.shard.lengths))]
        self.lengths = np.array([file.shard.lengths[group] for file, group in self.episodes], np.int64)

    def verify(self) -> None:
        """Every file is there and what the manifest says, or a Mistake that names it and its cure.

        Done before a stage begins, so that a damaged file can't stop it in the middle. On a disk
        the content is hashed; a bucket checks content itself, so there the size has to do.
        """
        if not self.files:
            raise UserError(
                "no rollouts to learn from: an unpacked agent comes without; let it drive (--collect.agent)"
            )
        sizes = {
            at: storage.sizes(at[1])
            for at, storage in {(f.storage.uri, f.folder): f.storage for f in self.files}.items()
        }
        for file in self.files:
            shard, there = file.shard, sizes[file.storage.uri, file.folder]
            if shard.key not in there:
                raise file.bad("is missing")
            if there[shard.key] != shard.bytes:
                raise file.bad(f"has {there[shard.key]} bytes instead of {shard.bytes}")
            if isinstance(file.storage, Folder) and sha256(file.storage.get(shard.key) or b"") != shard.sha256:
                raise file.bad("is damaged (its hash is wrong)")

    def read(self, episode: int, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Columns of one episode."""
        file, group = self.episodes[episode]
        try:
            with closing(file.storage.open(file.shard.key)) as source:
                parquet = pq.ParquetFile(source, page_checksum_verification=True)
                table = parquet.read_row_group(group, columns=list(columns), use_threads=False)
                found = {name: to_numpy(table.column(name)) for name in columns}
        except FileNotFoundError:
            raise file.bad("is missing") from None
        except (pa.ArrowException, OSError, KeyError) as error:
            raise file.bad(f"can't be read ({str(error).splitlines()[0]})") from None
        if len(found[columns[0]]) != file.shard.lengths[group]:
            raise file.bad("holds other episodes than its manifest says")
        return found


class FrameStream:
    """Frames in shuffled batches without end: batch n is a pure function of (data set, seed, n).

    Each epoch shuffles the episodes, cuts their sequence into windows of about `window` frames and
    shuffles within each. Two windows are in memory, whatever the size of the data set: one being
    served, one being read by a thread.
    """

    def __init__(self, data: DataSet, episodes: np.ndarray, batch: int, seed: int, window: int = 10_000):
        self.data, self.episodes, self.batch, self.seed, self.window = data, episodes, batch, seed, window
        self.total = int(data.lengths[episodes].sum())
        assert self.total > 0, "no frames"

    def batches(self, start: int = 0) -> Iterator[np.ndarray]:
        """Batches number start, start + 1, ... (B, 64, 64, 3) uint8"""
        return self._batches(start, self._frames)

    def positions(self, start: int = 0) -> Iterator[np.ndarray]:
        """The same batches for who has all frames at hand, the data set's episodes laid end to end. (B,)"""
        return self._batches(start, self._positions)

    def _batches(self, start: int, load: Callable[[np.ndarray], np.ndarray]) -> Iterator[np.ndarray]:
        rest = load(self.episodes[:0])
        for items, order in _ahead(self._windows(start * self.batch, load)):
            at = self.batch - len(rest) if len(rest) else 0
            if at > len(order):
                rest = np.concatenate([rest, items[order]])
                continue
            if len(rest):
                yield np.concatenate([rest, items[order[:at]]])
            while at + self.batch <= len(order):
                yield items[order[at : at + self.batch]]
                at += self.batch
            rest = items[order[at:]]

    def _windows(self, skip: int, load: Callable[[np.ndarray], np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(items, the order to serve them in), from number `skip` of the endless sequence on."""
        epoch, skip = divmod(skip, self.total)
        while True:
            rng = np.random.default_rng((self.seed, epoch))
            for episodes in self._cut(rng.permutation(self.episodes)):
                order = rng.permutation(int(self.data.lengths[episodes].sum()))
                if skip >= len(order):
                    skip -= len(order)
                    continue
                yield load(episodes), order[skip:]
                skip = 0
            epoch += 1

    def _frames(self, episodes: np.ndarray) -> np.ndarray:
        frames, at = np.empty((int(self.data.lengths[episodes].sum()), *FRAME), np.uint8), 0
        for episode in episodes:
            part = self.data.read(int(episode), ["frame"])["frame"]
            frames[at : at + len(part)] = part
            at += len(part)
        return frames

    def _positions(self, episodes: np.ndarray) -> np.ndarray:
        ends = np.cumsum(self.data.lengths)
        parts = [np.arange(ends[episode] - self.data.lengths[episode], ends[episode]) for episode in episodes]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _cut(self, episodes: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum(self.data.lengths[episodes])
        windows = -(-int(ends[-1]) // self.window)  # of equal size: a small last one would be shuffled badly
        return np.split(episodes, np.searchsorted(ends, ends[-1] * np.arange(1, windows) / windows, "right"))


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, the next one made by a thread while this one is used."""
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=1)
    stop = threading.Event()
    room = threading.Semaphore(0)  # one item ahead, begun only once the last one made is in use

    def work() -> None:
        try:
            for item in items:
                ready.put((True, item))
                del item
                room.acquire()
                if stop.is_set():
                    return
        except BaseException as error:
            ready.put((False, error))

    thread = threading.Thread(target=work, daemon=True, name="read-ahead")
    thread.start()
    try:
        while True:
            good, item = ready.get()
            if not good:
                raise item
            room.release()
            yield item
            del item
    finally:
        stop.set()
        room.release()


MIRRORED = ("mirrored_mu", "mirrored_logvar")
