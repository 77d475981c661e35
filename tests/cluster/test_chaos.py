"""Results stay correct when workers die or hang and nodes join or leave."""

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import ray
from chaos import CHAOS

from cluster import runtime, workers
from cluster.pool import RayPool
from wm.errors import Failure

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import the tests
ROLLOUT = {runtime.ROLE: "rollout"}
pytestmark = pytest.mark.usefixtures("cluster")


def where(unit):
    time.sleep(0.05)
    return ray.get_runtime_context().get_node_id()


def check_results(crew, units, result=lambda unit: unit):
    answers = list(crew.map(units))
    assert sorted(answers) == sorted((unit, result(unit)) for unit in units)


def test_units_of_a_killed_worker_are_retried(as_work, tmp_path):
    def play(unit):
        if unit % 5 == 0 and not (tmp_path / str(unit)).exists():
            (tmp_path / str(unit)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return unit

    pool = RayPool(workers=2)
    with pool.crew(as_work(play)) as crew:
        check_results(crew, range(15))
    assert pool.stats.died == 3
    assert pool.stats.requeued >= 3


def test_workers_killed_by_another_process_are_replaced(as_work):
    def play(unit):
        time.sleep(0.05)
        return unit

    pool = RayPool(workers=3)
    with pool.crew(as_work(play)) as crew:
        check_results(crew, range(20))
        for killed in range(3):
            pid = next(worker.pid for worker in crew.group.workers if worker.ready)
            threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
            check_results(crew, range(30))
            assert pool.stats.died == killed + 1


def test_a_unit_that_always_kills_its_worker_fails_the_job(as_work):
    def play(unit):
        if unit == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        return unit

    pool = RayPool(workers=2, max_deaths=3)
    with pool.crew(as_work(play)) as crew, pytest.raises(Failure, match=r"2 killed \d workers"):
        list(crew.map(range(4)))
    assert pool.stats.died >= 3


def test_child_processes_of_a_killed_worker_are_killed(as_work, tmp_path):
    def play(unit):
        child = subprocess.Popen(["sleep", "1000"])  # like the Doom engine
        if not (tmp_path / "pid").exists():
            (tmp_path / "pid").write_text(str(child.pid))
            os.kill(os.getpid(), signal.SIGKILL)
        return child.pid

    with RayPool(workers=1).crew(as_work(play)) as crew:
        (answer,) = crew.map(["once"])
    children = {int((tmp_path / "pid").read_text()), answer[1]}
    end = time.monotonic() + 20
    while any(alive(pid) for pid in children):
        assert time.monotonic() < end
        time.sleep(0.2)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_work_that_kills_every_worker_while_building_fails_the_job(cluster):
    class Broken:
        threads = 0

        def build(self):
            os.kill(os.getpid(), signal.SIGKILL)

    with (
        RayPool(workers=1, max_deaths=2).crew(Broken()) as crew,
        pytest.raises(Failure, match="before they were ready"),
    ):
        list(crew.map(range(4)))


@pytest.mark.parametrize("how", ["stopped", "asleep"])
def test_a_hung_worker_is_replaced(as_work, tmp_path, how):
    def play(unit):
        if unit == 6 and not (tmp_path / "hung").exists():
            (tmp_path / "hung").touch()
            if how == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(1000)
        return unit

    pool = RayPool(workers=1, min_timeout_seconds=2)
    start = time.monotonic()
    with pool.crew(as_work(play)) as crew:
        check_results(crew, range(10))
    assert time.monotonic() - start < 30
    assert pool.stats.hung == 1


def test_a_worker_that_hangs_while_starting_is_replaced(cluster, tmp_path, monkeypatch):
    class Hanging:
        threads = 0

        def __init__(self, path):
            self.path = path

        def __setstate__(self, state):
            self.__dict__.update(state)
            if not self.path.exists():
                self.path.touch()
                time.sleep(1000)

        def build(self):
            return lambda unit: unit

    monkeypatch.setattr("cluster.pool.START_TIMEOUT_SECONDS", 3.0)
    pool = RayPool(workers=1)
    with pool.crew(Hanging(tmp_path / "began")) as crew:
        check_results(crew, range(4))
    assert pool.stats.started >= 2


def test_a_worker_that_hangs_in_the_first_unit_is_replaced(as_work, tmp_path):
    def play(unit):
        if not (tmp_path / "hung").exists():
            (tmp_path / "hung").touch()
            time.sleep(1000)
        return unit

    pool = RayPool(workers=1, unit_seconds=2)
    with pool.crew(as_work(play)) as crew:
        check_results(crew, range(3))
    assert pool.stats.hung == 1


def test_a_node_is_lost_and_another_joins(as_work, node):
    first, second = node(1, labels=ROLLOUT), node(1, labels=ROLLOUT)
    pool = RayPool()

    def play(unit):
        time.sleep(0.1)
        return unit

    with pool.crew(as_work(play)) as crew:
        assert pool.workers == 2
        check_results(crew, range(10))
        answers, added = [], []

        def nodes_in_use():
            return {worker.node for worker in crew.group.workers if worker.ready}

        def units():  # until the loss is detected and the new node is in use
            for unit in range(600):
                if added and nodes_in_use() == {second.node_id, added[0].node_id}:
                    return
                yield unit

        for answer in crew.map(units()):
            answers.append(answer)
            if len(answers) == 10:
                first.kill_all_processes(check_alive=False, allow_graceful=False)
            if len(answers) == 15:
                added.append(node(1, labels=ROLLOUT))
        assert sorted(answers) == [(unit, unit) for unit in range(len(answers))]
        assert nodes_in_use() == {second.node_id, added[0].node_id}
    assert pool.stats.died >= 1


def test_a_map_survives_the_temporary_loss_of_all_nodes(as_work, node, monkeypatch, caplog):
    pool = RayPool(workers=1, label_selector={"here": "yes"})
    only = node(1, labels={"here": "yes"})
    monkeypatch.setattr(workers, "NO_WORKER_WARNING_SECONDS", 1)
    polls, real = [], runtime.nodes

    def nodes():  # runs in the driver's thread, the only one that may add nodes
        alive = real()
        if only.node_id not in {node.id for node in alive}:
            polls.append(1)
            if len(polls) == 3:
                node(1, labels={"here": "yes"})
        return alive

    monkeypatch.setattr(runtime, "nodes", nodes)

    def play(unit):
        time.sleep(0.1)
        return unit

    with pool.crew(as_work(play)) as crew:
        answers = []
        for answer in crew.map(range(30)):
            answers.append(answer)
            if len(answers) == 5:
                only.kill_all_processes(check_alive=False, allow_graceful=False)
        assert sorted(answers) == [(unit, unit) for unit in range(30)]
    assert "no worker is ready" in caplog.text


def test_a_draining_node_gets_no_new_units(as_work, node, monkeypatch):
    draining, staying = node(1, labels=ROLLOUT), node(1, labels=ROLLOUT)
    draining_ids = set()
    monkeypatch.setattr(runtime, "_draining", lambda: draining_ids)
    pool = RayPool()
    with pool.crew(as_work(where)) as crew:
        while {node for _, node in crew.map(range(20))} != {draining.node_id, staying.node_id}:
            pass
        draining_ids.add(draining.node_id)
        time.sleep(1.1)
        assert {node for _, node in crew.map(range(20))} == {staying.node_id}
    assert pool.stats.restarts == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_random_kills(as_work, node):
    """Kills and stops workers, and replaces nodes, during many short maps."""
    rng = random.Random(0)
    nodes = [node(2, labels=ROLLOUT) for _ in range(2)]
    pool = RayPool(min_timeout_seconds=5, max_deaths=50)

    def play(unit):
        time.sleep(0.2)
        return unit

    kills, killed, seen = 0, Counter[str](), hashlib.sha256()
    expected = hashlib.sha256()
    with pool.crew(as_work(play)) as crew:
        while kills < 100:
            answers = []
            for answer in crew.map(range(24)):
                answers.append(answer)
                if rng.random() < 0.2 and kills < 100:
                    kills += 1
                    ready = [worker for worker in crew.group.workers if worker.ready]
                    if kills % 20 == 0:
                        gone = nodes.pop(0)
                        gone.kill_all_processes(check_alive=False, allow_graceful=False)
                        nodes.append(node(2, labels=ROLLOUT))
                        killed["node"] += 1
                    elif ready:
                        killed["worker"] += 1
                        how = signal.SIGSTOP if kills % 10 == 0 else signal.SIGKILL
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(rng.choice(ready).pid, how)
            seen.update(str(sorted(answers)).encode())
            expected.update(str([(unit, unit) for unit in range(24)]).encode())
            assert sorted(answers) == [(unit, unit) for unit in range(24)]
    CHAOS.add("units of a pool", killed, expected.hexdigest(), seen.hexdigest())
