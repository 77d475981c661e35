"""Stages give bit-identical results on a cluster that loses workers, nodes and the driver."""

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chaos import CHAOS, kill_a_worker, lose_a_node, workers_of
from processes import Job

from cluster import runtime
from cluster.pool import RayPool
from wm.config.presets import PRESETS
from wm.pipeline import stage_function
from wm.pool import LocalPool, Progress
from wm.runs.run import Run, open_existing, start_run
from wm.runs.stages import STAGES
from wm.stages.collect import collect
from wm.stages.evolve import evolve

ROLLOUT = {runtime.ROLE: "rollout"}


def with_generations(uri: str | Path, generations: int) -> Run:
    """The run, with this number of generations in its config."""
    run = open_existing(str(uri))
    config = replace(run.config, evolve=replace(run.config.evolve, generations=generations))
    return start_run(str(uri), run.preset, config)


def theta_of(uri: str | Path, generations: int, pool: Any) -> str:
    run = with_generations(uri, generations)
    return evolve(run, pool).metrics["theta_sha256"]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with V and M but without C."""
    folder = tmp_path_factory.mktemp("learned")
    run = start_run(str(folder), "tiny", PRESETS["tiny"])
    for name in tuple(STAGES)[:-2]:  # all stages but evolve and score
        stage_function(name)(run, LocalPool())
    return folder


def test_evolution_is_unchanged_when_workers_and_nodes_are_lost(
    learned: Path, tmp_path: Path, cluster: Any, node: Callable[..., Any]
) -> None:
    alone, together = (shutil.copytree(learned, tmp_path / name) for name in ("alone", "together"))
    generations = 16  # enough that the loss of the node is detected before the end
    expected = theta_of(alone, generations, LocalPool())
    nodes, events = [node(2, labels=ROLLOUT)], []
    run = with_generations(together, generations)

    def disturb(progress: Progress) -> None:
        if progress.done == 1:
            os.kill(workers_of(nodes[0])[0], signal.SIGKILL)
            nodes.append(node(2, labels=ROLLOUT))
            events.append("a worker killed, a node added")
        if progress.done == 2:
            nodes[0].kill_all_processes(check_alive=False, allow_graceful=False)
            events.append("a node lost")

    run.tell = disturb
    pool = RayPool(workers=2)
    found = evolve(run, pool).metrics["theta_sha256"]
    CHAOS.add("evolve, 16 generations", Counter(worker=1, node=1), expected, found)
    assert found == expected
    assert events == ["a worker killed, a node added", "a node lost"]
    assert pool.stats.died >= 2


def test_collection_is_unchanged_when_workers_and_nodes_are_lost(
    tmp_path: Path, cluster: Any, node: Callable[..., Any]
) -> None:
    tiny = PRESETS["tiny"]
    config = replace(tiny, collect=replace(tiny.collect, episodes=24, steps=100))
    runs = {name: start_run(str(tmp_path / name), "tiny", config) for name in ("alone", "together")}
    expected = collect(runs["alone"], LocalPool())
    nodes, events = [node(1, labels=ROLLOUT) for _ in range(2)], []

    def disturb(progress: Progress) -> None:
        if progress.done == 2:
            os.kill(workers_of(nodes[1])[0], signal.SIGKILL)
            events.append("a worker killed")
        if progress.done == 4:
            nodes[0].kill_all_processes(check_alive=False, allow_graceful=False)
            events.append("a node lost")

    runs["together"].tell = disturb
    made = collect(runs["together"], RayPool(workers=2))
    assert events == ["a worker killed", "a node lost"]
    CHAOS.add("collect, 24 episodes", Counter(worker=1, node=1), expected.digest, made.digest)
    assert made.digest == expected.digest
    assert [shard["sha256"] for shard in made.content["shards"]] == [
        shard["sha256"] for shard in expected.content["shards"]
    ]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_hundred_random_kills_of_workers_nodes_and_the_driver(
    learned: Path, tmp_path: Path, job: Callable[..., Job], cluster: Any, node: Callable[..., Any]
) -> None:
    """One kill per generation, since a driver that is killed more often makes no progress."""
    wanted, generations, rng = 100, 120, random.Random(1)
    words = ["--base", learned, "--generations", generations, "--episodes", 1, "--validate-every", generations]
    expected = job("evolve", "--run", tmp_path / "alone", "--local", *words)
    assert expected.wait() == 0, expected.stderr
    nodes = [node(2, labels=ROLLOUT) for _ in range(2)]
    words = ["evolve", "--run", tmp_path / "together", "--address", cluster.address, *words]
    driver, kills = job(*words), {"worker": 0, "node": 0, "driver": 0}

    def generation() -> int:
        files = list(tmp_path.glob("together/evolve/*/metrics.jsonl"))
        return files[0].read_text().count("\n") if files else 0

    def not_done() -> bool:
        time.sleep(0.05)
        if not driver.running and driver.wait() == 0:
            return False
        assert driver.running, driver.stderr
        return True

    while not_done():
        if sum(kills.values()) == wanted or generation() <= sum(kills.values()):
            continue
        time.sleep(rng.uniform(0, 1))  # at any point of a generation
        what = rng.choices(["worker", "node", "driver"], [86, 7, 7])[0]
        if what == "worker":
            if not kill_a_worker(nodes, rng):
                continue
        elif what == "node":
            lose_a_node(nodes, lambda: node(2, labels=ROLLOUT))
        elif driver.running:
            driver.send(signal.SIGKILL)
            driver.process.join()
            driver = job(*words)
        kills[what] += 1
    hashes = [one.summary["stages"]["evolve"]["theta_sha256"] for one in (expected, driver)]
    CHAOS.add("evolve, on a cluster of two nodes", Counter(kills), *hashes)
    assert sum(kills.values()) == wanted, f"finished after too few kills: {kills}"
    assert hashes[0] == hashes[1]
