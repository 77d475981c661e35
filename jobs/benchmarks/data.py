"""Writing and reading rollouts, against a plain loop over gymnasium that writes npz files."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from jobs.benchmarks.measure import Row, one_core, rate, rates
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.envs import load
from wm.runs.shards import DataSet, File, FrameStream, Shard
from wm.runs.storage import Folder
from wm.stages.collect import CollectWork


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
    config = _config()
    with tempfile.TemporaryDirectory() as folder:
        work = collect_work(config, folder).build()
        records = [work(unit) for unit in range(5)]
        shards = [
            Shard(record["key"], record["sha256"], record["bytes"], tuple(record["lengths"])) for record in records
        ]
        data = DataSet(File(Folder(folder), shard, "") for shard in shards)
        with one_core():
            stream = FrameStream(data, np.arange(len(data.lengths)), batch=128, seed=1)
            batches = stream.batches()
            mine = rate(lambda: len(next(batches)), seconds)
            plain = _plain_reading(data, folder)
    return [Row("reading shuffled batches, one core", mine, "frames/s", plain)]


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
