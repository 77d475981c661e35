"""Rollouts and latents on disk: Parquet shards with a row per step and a row group per episode.

Any tool that reads Parquet can read them. This module writes them, checks them against their hashes before they are
used, and streams them in shuffled order with bounded memory.
"""

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wm.envs import FRAME
from wm.errors import UserError
from wm.runs.ahead import mapped, read_ahead
from wm.runs.storage import Folder, Storage, sha256

PIXELS = int(np.prod(FRAME))
MIRRORED = ("mirrored_mu", "mirrored_logvar")  # columns of the mirrored frames


def rollout_schema(actions: int, about: dict[str, str]) -> pa.Schema:
    """Rollouts: frame, action and reward of each step."""
    return _schema([("frame", pa.binary(PIXELS))], actions, about)  # the frame before the action


def latent_schema(names: Iterable[str], z: int, actions: int, about: dict[str, str]) -> pa.Schema:
    """The same steps encoded by V: the named columns, such as mu and logvar, in place of the frame."""
    return _schema([(name, pa.list_(pa.float32(), z)) for name in names], actions, about)


def _schema(observations: list[tuple[str, pa.DataType]], actions: int, about: dict[str, str]) -> pa.Schema:
    fields = [
        ("episode", pa.int64()),
        ("step", pa.int32()),
        *observations,
        ("action", pa.list_(pa.float32(), actions)),
        ("reward", pa.float64()),  # of that action
        ("terminated", pa.bool_()),
        ("truncated", pa.bool_()),
    ]
    return pa.schema(fields, metadata=about)


class ShardWriter:
    """Collects episodes in memory and returns them as the bytes of one Parquet file.

    The same rows give the same bytes with the same version of pyarrow.
    """

    def __init__(self, schema: pa.Schema):
        self.schema, self.buffer = schema, io.BytesIO()
        self.writer = pq.ParquetWriter(
            self.buffer,
            schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=False,  # values hardly repeat, apart from constants, which zstd compresses well
            write_page_checksum=True,
            data_page_size=1 << 22,
        )

    def add(self, columns: dict[str, Any]) -> None:
        """Add one episode as one row group."""
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
    """A column as one array: frames (T, 64, 64, 3), vectors (T, N), numbers (T,)."""
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if pa.types.is_fixed_size_binary(array.type):
        raw = np.frombuffer(array.buffers()[1], np.uint8)
        return raw[array.offset * PIXELS :][: len(array) * PIXELS].reshape(-1, *FRAME)
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1)
    return array.to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class Shard:
    """One file as its manifest describes it."""

    key: str
    sha256: str
    bytes: int
    lengths: tuple[int, ...]  # steps of each of its episodes


class File(NamedTuple):
    """A shard in its storage, and the command that makes it again if it is damaged."""

    storage: Storage
    shard: Shard
    cure: str

    @property
    def folder(self) -> str:
        return self.shard.key.rpartition("/")[0]

    def error(self, what: str) -> UserError:
        return UserError(
            f"{self.storage.uri}/{self.shard.key} {what}: delete this file if it exists, then run `{self.cure}`"
        )


DISK_READERS = 8  # threads at most, one for each core: decoding takes the time
BUCKET_READERS = 16  # waiting takes the time: a request to S3 takes 20 ms or more


class DataSet:
    """Episodes in shards. Each is read separately; only the footers of the files are kept in memory."""

    def __init__(self, files: Iterable[File], readers: int = 0):
        """readers: threads that read at the same time; 0 chooses their number. It does not change what is read."""
        self.files, self.chosen_readers = tuple(files), readers
        self.episodes = [(file, group) for file in self.files for group in range(len(file.shard.lengths))]
        self.lengths = np.array([file.shard.lengths[group] for file, group in self.episodes], np.int64)
        self.footers: dict[tuple[str, str], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"footers": {}}

    @property
    def readers(self) -> int:
        if self.chosen_readers:
            return self.chosen_readers
        if not all(isinstance(file.storage, Folder) for file in self.files):
            return BUCKET_READERS
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(DISK_READERS, cores)

    def verify(self) -> None:
        """Check every file against the manifest; raises a UserError for a missing or damaged one.

        Stages do this before they begin, so that a damaged file does not stop them halfway. On a disk the content is
        hashed; buckets verify content themselves, so only the size is compared.
        """
        if not self.files:
            raise UserError(
                "no rollouts to train on: agent files contain none; collect some with the agent (--collect.agent URI)"
            )
        sizes = {
            at: storage.sizes(at[1])
            for at, storage in {(f.storage.uri, f.folder): f.storage for f in self.files}.items()
        }
        for file in self.files:
            shard, found = file.shard, sizes[file.storage.uri, file.folder]
            if shard.key not in found:
                raise file.error("is missing")
            if found[shard.key] != shard.bytes:
                raise file.error(f"has {found[shard.key]} bytes instead of {shard.bytes}")
            if isinstance(file.storage, Folder) and sha256(file.storage.get(shard.key) or b"") != shard.sha256:
                raise file.error("is damaged (its hash differs)")

    def read(self, episode: int, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """These columns of one episode."""
        file, group = self.episodes[episode]
        at, remote = (file.storage.uri, file.shard.key), not isinstance(file.storage, Folder)
        try:
            with closing(file.storage.open(file.shard.key, file.shard.bytes)) as source:
                footer = self.footers.get(at)
                # With pre_buffer the columns of an episode are one request.
                parquet = pq.ParquetFile(source, metadata=footer, pre_buffer=remote, page_checksum_verification=True)
                self.footers[at] = parquet.metadata
                table = parquet.read_row_group(group, columns=list(columns), use_threads=False)
                found = {name: to_numpy(table.column(name)) for name in columns}
        except FileNotFoundError:
            raise file.error("is missing") from None
        except (pa.ArrowException, OSError, KeyError) as error:
            raise file.error(f"can't be read ({str(error).splitlines()[0]})") from None
        if len(found[columns[0]]) != file.shard.lengths[group]:
            raise file.error("has other episodes than its manifest")
        return found

    def read_all(self, episodes: Iterable[int], columns: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """These columns of each episode, in order, read by several threads."""
        return mapped(lambda episode: self.read(episode, columns), episodes, self.readers)


class FrameStream:
    """An endless stream of shuffled batches of frames: batch n is a pure function of (data set, seed, n).

    Each epoch shuffles the episodes, cuts their sequence into windows of about `window` frames and shuffles within
    each window. Two windows are in memory for any size of the data set: one in use and one that a thread reads ahead.
    """

    def __init__(self, data: DataSet, episodes: np.ndarray, batch: int, seed: int, window: int = 10_000):
        self.data, self.episodes, self.batch, self.seed, self.window = data, episodes, batch, seed, window
        self.total = int(data.lengths[episodes].sum())
        assert self.total > 0, "no frames"

    def batches(self, start: int = 0) -> Iterator[np.ndarray]:
        """Batches number start, start + 1, ... (B, 64, 64, 3) uint8"""
        return self._batches(start, self._frames)

    def positions(self, start: int = 0) -> Iterator[np.ndarray]:
        """The same batches as indices (B,) into the concatenated frames of this stream's episodes."""
        return self._batches(start, self._positions)

    def _batches(self, start: int, load: Callable[[np.ndarray], np.ndarray]) -> Iterator[np.ndarray]:
        rest = load(self.episodes[:0])
        for items, order in read_ahead(self._windows(start * self.batch, load)):
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
        """(items, their shuffled order), from item `skip` of the endless sequence on."""
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
        lengths = self.data.lengths[episodes]
        frames = np.empty((int(lengths.sum()), *FRAME), np.uint8)
        parts = zip(episodes.tolist(), np.split(frames, np.cumsum(lengths)[:-1]), strict=False)

        def fill(part: tuple[int, np.ndarray]) -> None:
            episode, into = part
            into[:] = self.data.read(episode, ["frame"])["frame"]

        for _ in mapped(fill, parts, self.data.readers):
            pass
        return frames

    def _positions(self, episodes: np.ndarray) -> np.ndarray:
        lengths = self.data.lengths
        begins = np.zeros(len(lengths), np.int64)
        begins[self.episodes] = np.cumsum(lengths[self.episodes]) - lengths[self.episodes]
        parts = [np.arange(begins[episode], begins[episode] + lengths[episode]) for episode in episodes]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _cut(self, episodes: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum(self.data.lengths[episodes])
        windows = -(-int(ends[-1]) // self.window)  # of about equal size: a small last one would be shuffled badly
        return np.split(episodes, np.searchsorted(ends, ends[-1] * np.arange(1, windows) / windows, "right"))
