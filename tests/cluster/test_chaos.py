"""Workers that die or hang, nodes that come and go: slower, never wrong."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray

from cluster import runtime, workers
from cluster.pool import RayPool
from wm.errors import Failure

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import tests
ROLLOUT = {runtime.ROLE: "rollout"}
pytestmark = pytest.mark.usefixtures("cluster")


def where(unit):
    time.sleep(0.05)
    return ray.get_runtime_context().get_node_id()


def checked(crew, units, result=lambda unit: unit):
    answers = list(crew.map(units))
    assert sorted(answers) == sorted((unit, result(unit)) for unit in units)


def test_a_unit_of_a_killed_worker_is_done_elsewhere(do, tmp_path):
    def play(unit):
        if unit % 5 == 0 and not (tmp_path / str(unit)).exists():
            (tmp_path / str(unit)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return unit

    pool = RayPool(workers=2)
    with pool.crew(do(play)) as crew:
        checked(crew, range(15))
    assert pool.stats.died == 3
    assert pool.stats.requeued >= 3


def test_workers_killed_from_outside(do):
    def play(unit):
        time.sleep(0.05)
        return unit

    pool = RayPool(workers=3)
    with pool.crew(do(play)) as crew:
        checked(crew, range(20))
        for killed in range(3):
            pid = next(hand.pid for hand in crew.staff.hands if hand.ready)
            threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
            checked(crew, range(30))
            assert pool.stats.died == killed + 1


def test_a_unit_that_ends_its_process_every_time_fails_the_job(do):
    def play(unit):
        if unit == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        return unit

    pool = RayPool(workers=2, deaths=3)
    with pool.crew(do(play)) as crew, pytest.raises(Failure, match=r"2 ended \d workers"):
        list(crew.map(range(4)))
    assert pool.stats.died >= 3


def test_a_killed_worker_takes_its_own_processes_with_it(do, tmp_path):
    def play(unit):
        child = subprocess.Popen(["sleep", "1000"])  # as Doom's engine is
        if not (tmp_path / "pid").exists():
            (tmp_path / "pid").write_text(str(child.pid))
            os.kill(os.getpid(), signal.SIGKILL)
        return child.pid

    with RayPool(workers=1).crew(do(play)) as crew:
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


def test_work_that_no_worker_survives_fails_the_job(cluster):
    class Broken:
        threads = 0

        def build(self):
            os.kill(os.getpid(), signal.SIGKILL)

    with RayPool(workers=1, deaths=2).crew(Broken()) as crew, pytest.raises(Failure, match="before they were ready"):
        list(crew.map(range(4)))


@pytest.mark.parametrize("how", ["stopped", "asleep"])
def test_a_hung_worker_is_replaced_within_a_bounded_time(do, tmp_path, how):
    def play(unit):
        if unit == 6 and not (tmp_path / "hung").exists():
            (tmp_path / "hung").touch()
            if how == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(1000)
        return unit

    pool = RayPool(workers=1, silent_seconds=2)
    start = time.monotonic()
    with pool.crew(do(play)) as crew:
        checked(crew, range(10))
    assert time.monotonic() - start < 30
    assert pool.stats.hung == 1


def test_a_worker_that_hangs_before_it_has_started_is_replaced(cluster, tmp_path, monkeypatch):
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

    monkeypatch.setattr("cluster.pool.START_SECONDS", 3.0)
    pool = RayPool(workers=1)
    with pool.crew(Hanging(tmp_path / "began")) as crew:
        checked(crew, range(4))
    assert pool.stats.hired >= 2


def test_a_worker_that_hangs_over_the_first_unit_is_replaced(do, tmp_path):
    def play(unit):
        if not (tmp_path / "hung").exists():
            (tmp_path / "hung").touch()
            time.sleep(1000)
        return unit

    pool = RayPool(workers=1, unit_seconds=2)
    with pool.crew(do(play)) as crew:
        checked(crew, range(3))
    assert pool.stats.hung == 1


def test_a_node_is_lost_without_notice_and_another_joins(do, node):
    first, second = node(1, labels=ROLLOUT), node(1, labels=ROLLOUT)
    pool = RayPool()

    def play(unit):
        time.sleep(0.1)
        return unit

    with pool.crew(do(play)) as crew:
        assert pool.workers == 2
        checked(crew, range(10))
        answers, added = [], []

        def places():
            return {hand.node for hand in crew.staff.hands if hand.ready}

        def units():  # until the lost node is noticed and the new one is in use
            for unit in range(600):
                if added and places() == {second.node_id, added[0].node_id}:
                    return
                yield unit

        for answer in crew.map(units()):
            answers.append(answer)
            if len(answers) == 10:
                first.kill_all_processes(check_alive=False, allow_graceful=False)
            if len(answers) == 15:
                added.append(node(1, labels=ROLLOUT))
        assert sorted(answers) == [(unit, unit) for unit in range(len(answers))]
        assert places() == {second.node_id, added[0].node_id}
    assert pool.stats.died >= 1


def test_all_nodes_gone_for_a_while(do, node, monkeypatch, caplog):
    pool = RayPool(workers=1, label_selector={"here": "yes"})
    only = node(1, labels={"here": "yes"})
    monkeypatch.setattr(workers, "SILENCE_SECONDS", 1)
    polls, real = [], runtime.nodes

    def nodes():  # the driver's own thread is the one that may add a node
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

    with pool.crew(do(play)) as crew:
        answers = []
        for answer in crew.map(range(30)):
            answers.append(answer)
            if len(answers) == 5:
                only.kill_all_processes(check_alive=False, allow_graceful=False)
        assert sorted(answers) == [(unit, unit) for unit in range(30)]
    assert "no worker yet" in caplog.text


def test_a_draining_node_gets_no_new_units(do, node, monkeypatch):
    leaving, staying = node(1, labels=ROLLOUT), node(1, labels=ROLLOUT)
    drained = set()
    monkeypatch.setattr(runtime, "_draining", lambda: drained)
    pool = RayPool()
    with pool.crew(do(where)) as crew:
        while {node for _, node in crew.map(range(20))} != {leaving.node_id, staying.node_id}:
            pass
        drained.add(leaving.node_id)
        time.sleep(1.1)
        assert {node for _, node in crew.map(range(20))} == {staying.node_id}
    assert pool.stats.restarts == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_random_kills(do, node):
    """Workers killed and stopped, nodes removed and added, all through many short generations."""
    luck = random.Random(0)
    nodes = [node(2, labels=ROLLOUT) for _ in range(2)]
    pool = RayPool(silent_seconds=5, deaths=50)

    def play(unit):
        time.sleep(0.2)
        return unit

    kills = 0
    with pool.crew(do(play)) as crew:
        while kills < 100:
            answers = []
            for answer in crew.map(range(24)):
                answers.append(answer)
                if luck.random() < 0.2 and kills < 100:
                    kills += 1
                    ready = [hand for hand in crew.staff.hands if hand.ready]
                    if kills % 20 == 0:
                        gone = nodes.pop(0)
                        gone.kill_all_processes(check_alive=False, allow_graceful=False)
                        nodes.append(node(2, labels=ROLLOUT))
                    elif ready:
                        how = signal.SIGSTOP if kills % 10 == 0 else signal.SIGKILL
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(luck.choice(ready).pid, how)
            assert sorted(answers) == [(unit, unit) for unit in range(24)]
