"""Shards: any Parquet tool reads them, the same rows give the same bytes, and damage is reported."""

import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from wm.envs import FRAME
from wm.errors import UserError
from wm.runs.shards import (
    DataSet,
    File,
    FrameStream,
    Shard,
    ShardWriter,
    frame_column,
    latent_schema,
    rollout_schema,
    to_numpy,
    vector_column,
)
from wm.runs.storage import Bucket, Storage, open_storage


def frames_of(episode: int, length: int) -> np.ndarray:
    """Distinct frames whose first bytes contain episode and step. (T, 64, 64, 3)"""
    frames = np.zeros((length, *FRAME), np.uint8)
    frames[:, 5:9, 7:11] = np.random.default_rng(episode).integers(0, 256, (length, 4, 4, 3))
    flat = frames.reshape(length, -1)
    flat[:, 0], flat[:, 1], flat[:, 2] = episode, np.arange(length) % 256, np.arange(length) // 256
    return frames


def identity(frames: np.ndarray) -> list[tuple[int, int]]:
    """(episode, step) of each frame."""
    flat = frames.reshape(len(frames), -1)
    return [(int(row[0]), int(row[1]) + 256 * int(row[2])) for row in flat[:, :3]]


def episode_of(number: int, length: int) -> dict:
    rng = np.random.default_rng(number)
    return {
        "episode": np.full(length, number, np.int64),
        "step": np.arange(length, dtype=np.int32),
        "frame": frame_column(frames_of(number, length)),
        "action": vector_column(rng.random((length, 3), np.float32)),
        "reward": rng.normal(size=length),
        "terminated": np.arange(length) == length - 1,
        "truncated": np.zeros(length, bool),
    }


def shard_of(first: int, lengths: Sequence[int]) -> bytes:
    writer = ShardWriter(rollout_schema(3, {"game": "none", "seeds": "[1, 2]"}))
    for number, length in enumerate(lengths, first):
        writer.add(episode_of(number, length))
    return writer.finish()


def data_of(storage: Storage, *shards: Sequence[int]) -> DataSet:
    """A data set with these episodes' lengths, shard by shard."""
    records, first = [], 0
    for unit, lengths in enumerate(shards):
        data = shard_of(first, lengths)
        key = f"collect/{unit:06d}.parquet"
        storage.put(key, data)
        records.append(Shard(key, hashlib.sha256(data).hexdigest(), len(data), tuple(lengths)))
        first += len(lengths)
    return DataSet(File(storage, shard, "python -m jobs.collect --run here") for shard in records)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return data_of(open_storage(str(tmp_path)), (30, 50), (1, 90), (40,), (25, 64))  # 300 frames in 7 episodes


def test_rows_are_read_as_they_were_written(uri: str) -> None:
    data = data_of(open_storage(uri), (30, 5), (7,))
    data.verify()
    columns = ["frame", "action", "reward", "terminated", "truncated", "step", "episode"]
    for number, length in enumerate((30, 5, 7)):
        found, written = data.read(number, columns), episode_of(number, length)
        assert np.array_equal(found["frame"], frames_of(number, length))
        assert np.array_equal(found["action"], written["action"].flatten().to_numpy().reshape(-1, 3))
        for name in ("reward", "terminated", "truncated", "step", "episode"):
            assert found[name].dtype == written[name].dtype
            assert np.array_equal(found[name], written[name])


def test_a_slice_of_a_column_converts_to_that_slice() -> None:
    table = pq.read_table(io.BytesIO(shard_of(3, (20,)))).slice(4, 7)
    assert np.array_equal(to_numpy(table.column("frame")), frames_of(3, 20)[4:11])
    assert to_numpy(table.column("action")).shape == (7, 3)


def test_the_same_rows_give_the_same_bytes() -> None:
    assert shard_of(0, (30, 50)) == shard_of(0, (30, 50))
    assert shard_of(0, (30, 50)) != shard_of(1, (30, 50))


def test_the_file_has_a_row_group_per_episode_and_metadata(tmp_path: Path) -> None:
    (tmp_path / "0.parquet").write_bytes(shard_of(0, (30, 50)))
    file = pq.ParquetFile(tmp_path / "0.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [30, 50]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert json.loads(file.schema_arrow.metadata[b"seeds"]) == [1, 2]


def test_pandas_reads_them(data: DataSet, tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.read_parquet(tmp_path / "collect" / "000001.parquet")
    assert len(frame) == 91
    assert list(frame["episode"].unique()) == [2, 3]
    assert np.frombuffer(frame["frame"][1], np.uint8).reshape(FRAME).tolist() == frames_of(3, 1)[0].tolist()
    assert len(frame["action"][0]) == 3


def test_duckdb_reads_them(data: DataSet, tmp_path: Path) -> None:
    import duckdb

    query = f"SELECT count(*), avg(reward), count(DISTINCT episode) FROM '{tmp_path}/collect/*.parquet'"
    steps, reward, episodes = duckdb.connect().execute(query).fetchone()
    rewards = np.concatenate([data.read(number, ["reward"])["reward"] for number in range(7)])
    assert (steps, episodes) == (300, 7)
    assert reward == pytest.approx(rewards.mean())


@pytest.mark.slow
def test_ray_data_reads_them(data: DataSet, tmp_path: Path) -> None:
    """In a separate process with its own Ray."""
    code = f"""
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
rows = ray.data.read_parquet({str(tmp_path / "collect")!r})
print(rows.count(), rows.sum("reward"), len(rows.take(1)[0]["frame"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    steps, reward, size = done.stdout.splitlines()[-1].split()
    rewards = np.concatenate([data.read(number, ["reward"])["reward"] for number in range(7)])
    assert (int(steps), int(size)) == (300, np.prod(FRAME))
    assert float(reward) == pytest.approx(rewards.sum())


def test_latents_have_the_same_steps() -> None:
    writer = ShardWriter(latent_schema(("mu", "logvar"), 8, 3, {}))
    columns = {name: value for name, value in episode_of(0, 12).items() if name != "frame"}
    mu = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    writer.add(columns | {"mu": vector_column(mu), "logvar": vector_column(-mu)})
    table = pq.read_table(io.BytesIO(writer.finish()))
    assert np.array_equal(to_numpy(table.column("mu")), mu)
    assert np.array_equal(to_numpy(table.column("logvar")), -mu)


# Kinds of damage.


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 16
    path.write_bytes(content)


def foreign(path: Path) -> None:
    """A valid file with other content."""
    path.write_bytes(shard_of(100, (1, 90)))


def no_parquet(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.parametrize("damage", [truncated, flipped, foreign, no_parquet, Path.unlink])
def test_a_damaged_file_is_reported_with_its_cure(data: DataSet, tmp_path: Path, damage) -> None:
    data.verify()
    damage(tmp_path / "collect" / "000001.parquet")
    cure = "delete this file if it exists, then run `python -m jobs.collect --run here`"
    with pytest.raises(UserError, match=f"{tmp_path}/collect/000001.parquet (is|has) .*{cure}"):
        data.verify()


@pytest.mark.parametrize("damage", [truncated, flipped, no_parquet, Path.unlink])
def test_reading_a_damaged_file_is_a_user_error(data: DataSet, tmp_path: Path, damage) -> None:
    """It may be damaged after the stage has begun."""
    damage(tmp_path / "collect" / "000001.parquet")
    with pytest.raises(UserError, match=r"collect/000001.parquet (is missing|can't be read)"):
        [data.read(episode, ["frame", "reward"]) for episode in (2, 3)]


def test_a_damaged_object_in_a_bucket_is_reported(s3) -> None:
    storage = open_storage(s3("damaged"))
    data = data_of(storage, (30,), (20,))
    whole = storage.get("collect/000001.parquet")
    storage.put("collect/000001.parquet", whole[:-1])
    with pytest.raises(UserError, match=f"{storage.uri}/collect/000001.parquet has {len(whole) - 1} bytes instead of"):
        data.verify()
    storage.delete("collect/000001.parquet")
    with pytest.raises(UserError, match="is missing"):
        data.verify()
    with pytest.raises(UserError, match="is missing"):
        data.read(1, ["frame"])


def test_files_that_no_manifest_names_are_ignored(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "collect" / "000009.parquet").write_bytes(b"anything")
    data.verify()
    assert len(data.lengths) == 7


# The stream of shuffled frames.


def stream_of(data: DataSet, batch: int = 16, seed: int = 5, window: int = 100) -> FrameStream:
    return FrameStream(data, np.arange(7), batch, seed, window)


def served(stream: FrameStream, count: int, start: int = 0) -> list[tuple[int, int]]:
    """The identities of the frames in `count` batches."""
    batches = itertools.islice(stream.batches(start), count)
    return [one for batch in batches for one in identity(batch)]


@pytest.mark.parametrize(("batch", "window"), [(16, 100), (300, 100), (7, 10), (450, 64), (1, 10_000)])
def test_every_frame_appears_once_per_epoch(data: DataSet, batch: int, window: int) -> None:
    everything = {(episode, step) for episode, length in enumerate(data.lengths) for step in range(length)}
    sequence = served(stream_of(data, batch, window=window), -(-900 // batch))
    epochs = [sequence[first : first + 300] for first in (0, 300, 600)]
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == 300
        assert set(epoch) == everything
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_frames_are_shuffled(data: DataSet) -> None:
    sequence = served(stream_of(data, window=10_000), 18)
    neighbours = sum(a[0] == b[0] and abs(a[1] - b[1]) == 1 for a, b in itertools.pairwise(sequence))
    assert neighbours < 20  # of 288; without shuffling nearly all


def test_batches_are_a_pure_function_of_the_seed_and_their_number(data: DataSet) -> None:
    whole = served(stream_of(data), 60)
    assert served(stream_of(data), 60) == whole
    assert served(stream_of(data, seed=6), 60) != whole
    for start in (1, 2, 7, 18, 19, 37, 57):  # within windows, across windows and across epochs
        assert served(stream_of(data), 3, start) == whole[16 * start : 16 * (start + 3)]


def test_batches_have_the_right_frames(data: DataSet) -> None:
    for batch in itertools.islice(stream_of(data).batches(3), 20):
        assert batch.shape == (16, *FRAME)
        for frame, (episode, step) in zip(batch, identity(batch), strict=True):
            assert np.array_equal(frame, frames_of(episode, int(data.lengths[episode]))[step])


def test_positions_are_the_same_batches(data: DataSet) -> None:
    stream = FrameStream(data, np.array([5, 1, 4]), 16, seed=5, window=60)
    frames_of_all = np.concatenate([read["frame"] for read in data.read_all(stream.episodes.tolist(), ["frame"])])
    for positions, frames in itertools.islice(zip(stream.positions(2), stream.batches(2), strict=True), 30):
        assert np.array_equal(frames_of_all[positions], frames)


def test_only_the_chosen_episodes_are_read(data: DataSet) -> None:
    stream = FrameStream(data, np.array([1, 3, 6]), 16, 5, 100)
    assert {episode for episode, _ in served(stream, 40)} == {1, 3, 6}


def test_two_windows_are_in_memory_at_most(tmp_path: Path) -> None:
    data = data_of(open_storage(str(tmp_path)), *[(20, 20)] * 10)  # 400 frames
    read = 0

    class Counting(DataSet):
        def read(self, episode: int, columns: Sequence[str]) -> dict[str, np.ndarray]:
            nonlocal read
            read += int(self.lengths[episode])
            return super().read(episode, columns)

    counted = Counting(data.files)
    window = 60  # three episodes
    batches: Iterator[np.ndarray] = FrameStream(counted, np.arange(20), 10, 1, window).batches()
    for number in range(1, 60):
        next(batches)
        if number % 6 == 1:
            time.sleep(0.05)  # time to read ahead
        assert read - 10 * number <= 2 * window


@pytest.mark.parametrize("readers", [1, 2, 5, 16])
def test_batches_do_not_depend_on_the_number_of_readers(data: DataSet, readers: int) -> None:
    several = DataSet(data.files, readers)
    assert several.readers == readers
    expected = itertools.islice(FrameStream(DataSet(data.files, 3), np.arange(7), 16, 5, 100).batches(7), 40)
    found = itertools.islice(FrameStream(several, np.arange(7), 16, 5, 100).batches(7), 40)
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    episodes = [4, 0, 6, 2]
    for episode, read in zip(episodes, several.read_all(episodes, ["frame", "reward"]), strict=True):
        assert np.array_equal(read["frame"], frames_of(episode, int(data.lengths[episode])))


def test_an_episode_in_a_bucket_is_one_request_and_several_are_read_at_a_time(
    s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(open_storage(s3("ranges")), (30, 50), (20, 90), (40, 10))
    expected = [data.read(episode, ["frame"])["frame"] for episode in range(6)]  # also reads the footers
    original, lock, together = Bucket.get_range, threading.Lock(), threading.Barrier(4, timeout=20)
    requests: list[str] = []

    def watched(self: Bucket, key: str, start: int, length: int) -> bytes:
        with lock:
            requests.append(key)
            first = len(requests) <= 4
        if first:
            together.wait()  # breaks unless four requests are on their way
        return original(self, key, start, length)

    monkeypatch.setattr(Bucket, "get_range", watched)
    found = list(DataSet(data.files, 4).read_all([], ["frame"]))
    assert found == requests == []
    assert len(data.footers) == 3
    assert data.__getstate__()["footers"] == {}  # they do not travel to workers
    data.chosen_readers = 4
    for frames, read in zip(expected, data.read_all(range(6), ["frame", "action", "reward"]), strict=True):
        assert np.array_equal(read["frame"], frames)
        assert len(read["reward"]) == len(frames)
    assert len(requests) == 6


def test_an_error_of_the_reading_thread_is_raised(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "collect" / "000002.parquet").unlink()
    with pytest.raises(UserError, match=r"000002.parquet is missing"):
        served(stream_of(data), 40)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """Compares the peak memory of reading 20,000 and 200,000 frames."""
    peaks = {}
    for count in (20_000, 200_000):
        folder = tmp_path / str(count)
        code = f"""
import resource, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import numpy as np
from test_shards import FRAME, DataSet, File, FrameStream, Shard, ShardWriter, frame_column, open_storage
from wm.pool import set_threads
set_threads(1)
import pyarrow as pa
storage, length = open_storage({str(folder)!r}), 1000
if sys.argv[1] == "write":
    schema = pa.schema([("frame", pa.binary(int(np.prod(FRAME))))])
    frames = np.zeros((length, *FRAME), np.uint8)
    frames[:, ::9] = np.arange(length, dtype=np.uint8)[:, None, None, None]
    writer = ShardWriter(schema)
    for _ in range(4):
        writer.add({{"frame": frame_column(frames)}})
    shard = writer.finish()
    for unit in range({count} // 4000):
        storage.put(f"{{unit:06d}}.parquet", shard)
else:
    shards = [Shard(key, "", size, (length,) * 4) for key, size in storage.sizes().items()]
    data = DataSet(File(storage, shard, "") for shard in shards)
    stream = FrameStream(data, np.arange(len(data.lengths)), 128, 1).batches()
    for _ in range({count} // 128):
        next(stream)
    print(len(data.lengths) * length, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
        for step in ("write", "read"):
            done = subprocess.run([sys.executable, "-c", code, step], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        frames, peaks[count] = map(int, done.stdout.split())
        assert frames == count
    print("peak MiB", peaks)
    assert peaks[200_000] < 1.1 * peaks[20_000]
