"""Writing and reading rollouts, against a plain loop over gymnasium that writes npz files."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from jobs.benchmarks.measure import Row, one_core, rate, rates
from jobs.benchmarks.slow_store import slow_store
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.envs import load
from wm.runs.shards import DataSet, File, FrameStream, Shard
from wm.runs.storage import Folder, Storage, open_storage
from wm.stages.collect import CollectWork

DELAY = 0.02  # seconds for a request to a bucket


def _config() -> Config:
    config = PRESETS["car-racing-small"]
    return replace(config, collect=replace(config.collect, unit_episodes=4))


def collect_work(config: Config, folder: str) -> CollectWork:
    return CollectWork(load(config.game), config.collect, config.seed, config.threads, folder, "collect")


def collecting(seconds: float) -> list[Row]:
    config = _config()
    with tempfile.TemporaryDirectory() as folder, one_core():
        work = collect_work(config, folder).build()
        units, records = iter(range(1_000_000)), []

        def ours() -> int:
            records.append(work(next(units)))
            return sum(records[-1]["lengths"])

        env, game = load("car-racing").make(exact=True), load("car-racing")
        script = game.explore("mixture", 1000, np.random.default_rng(0))

        def plain() -> int:
            env.reset(seed=1)
            steps, frames, actions = 200, [], []
            for step in range(steps):
                frame, *_ = env.step(script[step])
                frames.append(frame)
                actions.append(script[step])
            np.savez_compressed(Path(folder, "plain.npz"), frames=np.stack(frames), actions=np.stack(actions))
            return steps

        mine, theirs = rates([ours, plain], 3 * seconds, turns=1)
        each = sum(record["bytes"] for record in records) / sum(sum(record["lengths"]) for record in records)
    return [
        Row("collecting, frames stored, one core", mine, "frames/s", theirs),
        Row("bytes of a stored frame", each, "bytes", 64 * 64 * 3),
    ]


def reading(seconds: float) -> list[Row]:
    with shards() as (folder, found):
        data = _data_set(Folder(folder), found)
        with one_core():
            mine = rate(_batches(data), seconds)
            plain = _plain_reading(data, folder)
        by_two, by_one = rates([_batches(_data_set(Folder(folder), found, readers)) for readers in (2, 1)], 3 * seconds)
        with slow_store(folder, DELAY) as uri:
            bucket = open_storage(uri)
            works = [_batches(_data_set(bucket, found)), _one_request_at_a_time(bucket, found)]
            far, far_plain = rates(works, 3 * seconds)
    return [
        Row("reading shuffled batches, one core", mine, "frames/s", plain),
        Row("reading shuffled batches, two readers against one", by_two, "frames/s", by_one),
        Row(f"reading from S3, {1000 * DELAY:.0f} ms for each request", far, "frames/s", far_plain),
    ]


def by_readers(seconds: float, counts: Sequence[int]) -> dict[int, float]:
    """Frames per second read from disk by this many threads."""
    with shards() as (folder, found):
        return {readers: rate(_batches(_data_set(Folder(folder), found, readers)), seconds) for readers in counts}


@contextmanager
def shards() -> Iterator[tuple[str, list[Shard]]]:
    """20 episodes of random play in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        work = collect_work(_config(), folder).build()
        records = [work(unit) for unit in range(5)]
        yield folder, [Shard(one["key"], one["sha256"], one["bytes"], tuple(one["lengths"])) for one in records]


def _data_set(storage: Storage, found: Sequence[Shard], readers: int = 0) -> DataSet:
    return DataSet((File(storage, shard, "") for shard in found), readers)


def _batches(data: DataSet) -> Callable[[], int]:
    batches = FrameStream(data, np.arange(len(data.lengths)), batch=128, seed=1).batches()
    return lambda: len(next(batches))


def _one_request_at_a_time(bucket: Storage, found: Sequence[Shard]) -> Callable[[], int]:
    """One episode after the other, each from its file's size and footer on."""
    episodes = itertools.cycle((shard, group) for shard in found for group in range(len(shard.lengths)))

    def read() -> int:
        shard, group = next(episodes)
        with bucket.open(shard.key) as source:
            return int(pq.ParquetFile(source).read_row_group(group, columns=["frame"], use_threads=False).num_rows)

    return read


def _plain_reading(data: DataSet, folder: str) -> float:
    """One npz file for each episode, loaded whole and shuffled."""
    for episode in range(4):
        np.savez_compressed(Path(folder, f"{episode}.npz"), frames=data.read(episode, ["frame"])["frame"])
    start, frames = time.perf_counter(), 0
    for episode in range(4):
        whole = np.load(Path(folder, f"{episode}.npz"))["frames"]
        order = np.random.default_rng(0).permutation(len(whole))
        for at in range(0, len(order), 128):
            frames += len(whole[order[at : at + 128]])
    return frames / (time.perf_counter() - start)
