"""Rollouts: any pool, any kill and any storage give the same bytes, and more can be added at any time."""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from processes import Job

from wm.config.presets import PRESETS
from wm.envs import load
from wm.errors import UserError
from wm.pool import LocalPool
from wm.runs.datasets import own_rollouts, rollouts_of
from wm.runs.manifest import Manifest
from wm.runs.run import Run, open_existing, start_run
from wm.runs.storage import Storage, open_storage
from wm.seeds import TRAINING
from wm.stages.collect import collect
from wm.stages.latents import encode_rollouts
from wm.stages.memory import train_memory
from wm.stages.vision import train_vision

TINY = PRESETS["tiny"]
MANY = replace(TINY, collect=replace(TINY.collect, episodes=8, steps=25, unit_episodes=1))
WORDS = ("tiny", "--episodes", 8, "--steps", 25, "--unit-episodes", 1)  # the same as flags


def collected(uri: str, extent: int | None = None) -> Manifest:
    manifest = open_existing(uri).stage("collect").manifest(extent)
    assert manifest is not None
    return manifest


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    run = start_run(str(tmp_path_factory.mktemp("undisturbed")), "tiny", MANY)
    return collect(run, LocalPool())


def same(made: Manifest, expected: Manifest) -> bool:
    """The same records and, on disk, the same bytes."""
    for record in made.content["shards"]:
        assert made.storage.get(record["key"]) == expected.storage.get(record["key"]), record["key"]
    return made.content == expected.content and made.digest == expected.digest


def committed(storage: Storage) -> list[str]:
    """Shards that have their record, by number."""
    names = [key.rpartition("/")[2].removesuffix(".json") for key in storage.sizes("collect")]
    return [name for name in names if name.isdigit()]


def test_a_local_pool_and_a_cluster_give_the_same_bytes(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    local = collect(start_run(str(tmp_path), "tiny", TINY), pool)
    assert same(local, collected(tiny.uri))


def test_rollouts_are_true_to_the_game(tiny: Run) -> None:
    """The recorded actions, played again, give the stored frames, and the rewards of the unmodified game."""
    game, shard = load("car-racing"), collected(tiny.uri).content["shards"][0]
    file = pq.ParquetFile(Path(tiny.uri) / shard["key"])
    about = file.schema_arrow.metadata
    assert (about[b"game"], about[b"frames"]) == (b"car-racing", game.version.encode())
    seeds = json.loads(about[b"seeds"])
    assert min(seeds) >= TRAINING
    data = own_rollouts(collected(tiny.uri))
    rows = data.read(0, ["frame", "action", "reward", "truncated", "step"])
    fast, exact = game.make(), game.make(exact=True)
    frame, _ = fast.reset(seed=seeds[0])
    exact.reset(seed=seeds[0])
    for step in range(40):
        assert np.array_equal(rows["frame"][step], frame)
        frame, *_ = fast.step(rows["action"][step])
        assert exact.step(rows["action"][step])[1] == rows["reward"][step]
    assert rows["step"].tolist() == list(range(40))
    assert rows["truncated"].tolist() == [False] * 39 + [True]


def test_the_manifest_sums_up_the_shards(undisturbed: Manifest) -> None:
    records = undisturbed.content["shards"]
    assert [record["key"] for record in records] == [f"collect/shards/{unit:06d}.parquet" for unit in range(8)]
    assert undisturbed.extent == 8
    assert undisturbed.metrics["frames"] == 8 * 25 == sum(sum(record["lengths"]) for record in records)
    assert undisturbed.metrics["bytes"] == sum(
        undisturbed.storage.sizes("collect")[record["key"]] for record in records
    )
    scores = [episode["score"] for record in records for episode in record["episodes"]]
    assert undisturbed.metrics["score"] == pytest.approx(np.mean(scores))
    assert len({episode["seed"] for record in records for episode in record["episodes"]}) == 8


def test_other_tools_read_the_folder_as_one_data_set(undisturbed: Manifest) -> None:
    import duckdb
    import pandas
    import polars

    folder = f"{undisturbed.storage.uri}/collect/shards"
    frames = undisturbed.metrics["frames"]
    whole = pandas.read_parquet(folder)
    assert (len(whole), sorted(whole.episode.unique())) == (frames, list(range(8)))
    table = polars.read_parquet(folder)
    assert (len(table), table["reward"].sum()) == (frames, pytest.approx(whole.reward.sum()))
    count, reward = duckdb.connect().execute(f"SELECT count(*), sum(reward) FROM '{folder}/*.parquet'").fetchone()
    assert (count, reward) == (frames, pytest.approx(whole.reward.sum()))


def test_more_episodes_keep_the_existing_ones(tmp_path: Path, pool: LocalPool, undisturbed: Manifest) -> None:
    fewer = replace(MANY, collect=replace(MANY.collect, episodes=3))
    collect(start_run(str(tmp_path), "tiny", fewer), pool)
    before = {path.name: path.stat() for path in (tmp_path / "collect" / "shards").glob("*.parquet")}
    assert len(before) == 3
    more = collect(start_run(str(tmp_path), "tiny", MANY), pool)
    assert same(more, undisturbed)
    for name, stat in before.items():
        now = (tmp_path / "collect" / "shards" / name).stat()
        assert (now.st_ino, now.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    assert collected(str(tmp_path), 3).extent == 3  # the earlier manifest is kept


def test_kills_leave_no_trace_in_the_rollouts(uri: str, job: Callable[..., Job], undisturbed: Manifest) -> None:
    storage = open_storage(uri)
    for shards in (1, 3, 6):
        job("collect", *WORDS, "--run", uri, "--local").kill_when(lambda at=shards: len(committed(storage)) >= at)
        assert open_existing(uri).stage("collect").manifest() is None
    before = committed(storage)
    records = {name: storage.get(f"collect/{name}.json") for name in before}
    files = _stats(uri, before)
    last = job("collect", "--run", uri, "--local")
    assert last.wait() == 0, last.stderr
    assert same(collected(uri), undisturbed)
    assert f"{len(before)} of 8 shards already exist" in last.stderr
    assert {name: storage.get(f"collect/{name}.json") for name in before} == records
    assert _stats(uri, before) == files  # no shard with a record was made again


def _stats(uri: str, names: list[str]) -> list[Any]:
    if uri.startswith("s3:"):
        import boto3

        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        folder = f"{prefix}/collect/shards"
        heads = [boto3.client("s3").head_object(Bucket=bucket, Key=f"{folder}/{name}.parquet") for name in names]
        return [head["LastModified"] for head in heads]
    stats = [Path(uri, "collect", "shards", f"{name}.parquet").stat() for name in names]
    return [(stat.st_ino, stat.st_mtime_ns) for stat in stats]


def test_kills_on_a_cluster_leave_no_trace(tmp_path: Path, job: Callable[..., Job], undisturbed: Manifest) -> None:
    """Stopped as by `ray job stop`, then killed, then finished by a single process."""
    uri = str(tmp_path / "run")
    storage = open_storage(uri)
    stopped = job("collect", *WORDS, "--run", uri, "--workers.count", 1)
    stopped.until(lambda: len(committed(storage)) >= 1)
    stopped.send(signal.SIGTERM)
    assert stopped.wait() == 130, stopped.stderr
    assert "Resume with: python -m jobs.collect tiny" in stopped.stderr
    before = committed(storage)
    files = _stats(uri, before)
    assert len(before) < 8
    job("collect", "--run", uri, "--workers.count", 2).kill_when(lambda: len(committed(storage)) > len(before))
    last = job("collect", "--run", uri, "--local")
    assert last.wait() == 0, last.stderr
    assert same(collected(uri), undisturbed)
    assert _stats(uri, before) == files


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_complete_shards_and_names_the_command(
    number: signal.Signals, tmp_path: Path, job: Callable[..., Job]
) -> None:
    uri = str(tmp_path / "a run")
    stopped = job("collect", *WORDS, "--run", uri, "--local")
    stopped.until(lambda: len(committed(open_storage(uri))) >= 1)
    stopped.send(number)
    assert stopped.wait() == 130
    assert stopped.stderr.splitlines()[-1] == (
        "interrupted; completed work is kept. Resume with:"
        f" python -m jobs.collect tiny --episodes 8 --steps 25 --unit-episodes 1 --run '{uri}' --local"
    )
    assert stopped.stdout == ""
    assert open_existing(uri).stage("collect").manifest() is None
    assert not list(Path(uri).rglob(".unfinished-*"))


def test_a_deleted_shard_is_restored(tiny: Run, copy: Callable[..., Path], pool: LocalPool) -> None:
    folder = copy()
    run = open_existing(str(folder))
    lost, other = folder / "collect" / "shards" / "000001.parquet", folder / "collect" / "shards" / "000000.parquet"
    content, kept = lost.read_bytes(), other.stat()
    lost.unlink()
    with pytest.raises(UserError, match=rf"{lost} is missing: .*python -m jobs.collect --run {folder}"):
        own_rollouts(collected(run.uri)).verify()
    assert collect(run, pool) == collected(tiny.uri)
    assert lost.read_bytes() == content
    assert (other.stat().st_ino, other.stat().st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)


def test_a_damaged_shard_stops_the_next_stage_before_it_starts(copy: Callable[..., Path], pool: LocalPool) -> None:
    folder = copy("vision")
    path = folder / "collect" / "shards" / "000001.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path} is damaged .* delete this file .*jobs.collect --run {folder}"):
        train_vision(open_existing(str(folder)), pool)
    assert not (folder / "vision").exists()
    path.unlink()
    collect(open_existing(str(folder)), pool)  # as the error says
    own_rollouts(collected(str(folder))).verify()


def test_an_agent_collects_for_another_round(copy: Callable[..., Path], tmp_path: Path, pool: LocalPool) -> None:
    """It plays new tracks, with noise. V and M train on its rollouts and on those that it learned from."""
    agent = copy()
    config = replace(TINY, collect=replace(TINY.collect, agent=str(agent)))
    run = start_run(str(tmp_path / "round"), "tiny", config)
    made, before = collect(run, pool), collected(str(agent))
    data = rollouts_of(made)
    assert [file.storage.uri for file in data.files] == [before.storage.uri] * 2 + [run.uri] * 2
    data.verify()
    seeds = [{e["seed"] for record in one.content["shards"] for e in record["episodes"]} for one in (made, before)]
    assert not seeds[0] & seeds[1]
    assert len({data.read(episode, ["action"])["action"].tobytes() for episode in range(8)}) == 8
    train_vision(run, pool)
    assert encode_rollouts(run, pool).metrics["frames"] == data.lengths.sum()
    assert same(collect(start_run(str(tmp_path / "again"), "tiny", config), pool), made)
    shutil.rmtree(agent / "collect")
    with pytest.raises(UserError, match="no completed collect stage"):
        rollouts_of(made)


def test_a_round_with_the_same_v_makes_its_own_latents_and_m(
    copy: Callable[..., Path], tmp_path: Path, pool: LocalPool
) -> None:
    """It reuses the rollouts of its base, but not its latents and M, which do not include this round's rollouts."""
    agent = open_existing(str(copy()))
    config = replace(
        TINY,
        collect=replace(TINY.collect, agent=agent.uri),
        vision=replace(TINY.vision, init=agent.uri, frozen=True),
    )
    run = start_run(str(tmp_path / "round"), "tiny", config, base=agent.uri)
    made, vision = collect(run, pool), train_vision(run, pool)
    assert vision.digest == agent.need("vision").digest
    latents = encode_rollouts(run, pool)
    assert latents.metrics["frames"] == rollouts_of(made).lengths.sum()
    assert train_memory(run, pool).inputs["latents"] == latents.digest


def test_curiosity_changes_the_stored_rewards_and_nothing_else(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    made = []
    for weight in (0.0, 0.5):
        section = replace(TINY.collect, agent=tiny.uri, episodes=2, steps=12, curiosity=weight)
        config = replace(TINY, collect=section)
        made.append(collect(start_run(str(tmp_path / str(weight)), "tiny", config), pool))
    plain, curious = (own_rollouts(manifest) for manifest in made)
    for episode in range(2):
        mine, theirs = (data.read(episode, ["frame", "action", "reward"]) for data in (plain, curious))
        assert np.array_equal(mine["frame"], theirs["frame"])
        assert np.array_equal(mine["action"], theirs["action"])
        more = theirs["reward"] - mine["reward"]
        assert len(np.unique(more[:-1])) == 11
        assert more[-1] == 0  # the bonus of a step is known at the next one
    assert made[0].metrics["score"] == made[1].metrics["score"]  # of the game, without the bonus
    about = [pq.read_schema(Path(one.storage.uri, one.content["shards"][0]["key"])).metadata for one in made]
    assert b"reward" not in about[0]
    assert about[1][b"reward"].startswith(b"the game's + 0.5 x (M's NLL a dimension - ")
    alone = replace(TINY, collect=replace(TINY.collect, curiosity=0.5))
    with pytest.raises(UserError, match=r"add --collect\.agent URI"):
        collect(start_run(str(tmp_path / "alone"), "tiny", alone), pool)


def test_an_episode_without_reward_ends_after_the_patience(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    """Until then its steps are unchanged, and it is not marked as ended."""
    config = replace(TINY, collect=replace(TINY.collect, patience=6))
    hasty = own_rollouts(collect(start_run(str(tmp_path), "tiny", config), pool))
    whole = own_rollouts(collected(tiny.uri))
    for episode in range(4):
        mine, theirs = (data.read(episode, ["frame", "action", "reward"]) for data in (hasty, whole))
        length = len(mine["reward"])
        assert all(np.array_equal(mine[name], theirs[name][:length]) for name in mine)
        earned = np.flatnonzero(theirs["reward"] > 0)
        stretches = np.diff([-1, *earned, 40]) - 1  # steps without reward before each reward and at the end
        assert stretches.max() >= 6, "no episode ends early, so nothing is tested"
        assert length == np.insert(earned + 1, 0, 0)[np.argmax(stretches >= 6)] + 6
        ends = hasty.read(episode, ["terminated", "truncated"])
        assert not any(name.any() for name in ends.values())


def test_collecting_with_an_agent_needs_a_complete_evolution(
    copy: Callable[..., Path], tmp_path: Path, pool: LocalPool
) -> None:
    config = replace(TINY, collect=replace(TINY.collect, agent=str(copy("evolve", "score"))))
    with pytest.raises(UserError, match=r"no completed evolve stage in .*: run `python -m jobs.evolve"):
        collect(start_run(str(tmp_path / "run"), "tiny", config), pool)
