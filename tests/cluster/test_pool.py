"""RayPool returns the same results and raises the same errors as LocalPool, for any number of workers."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from cluster import runtime
from cluster.pool import RayPool
from wm.errors import Failure, UserError
from wm.pool import LocalPool, UnitFailed

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import the tests
pytestmark = pytest.mark.usefixtures("cluster")


def results_by_unit(crew, units):
    """Check that each unit is returned once."""
    answers = list(crew.map(units))
    assert len({unit for unit, _ in answers}) == len(answers)
    return dict(answers)


def test_results_match_the_local_pool_for_any_number_of_workers(as_work):
    def play(seed):
        import numpy as np

        return np.random.default_rng(seed).standard_normal(100).cumsum().tobytes()

    with LocalPool().crew(as_work(play)) as crew:
        expected = results_by_unit(crew, range(40))
    for workers in (1, 2, 4):
        pool = RayPool(workers=workers)
        with pool.crew(as_work(play)) as crew:
            assert results_by_unit(crew, range(40)) == expected
            assert results_by_unit(crew, range(20, 40)) == {unit: expected[unit] for unit in range(20, 40)}
            assert results_by_unit(crew, []) == {}
        assert pool.stats.started <= workers
        assert pool.stats.units == 60


def test_work_is_built_once_per_worker_with_its_number_of_threads(cluster):
    class Counted:
        threads = 1

        def build(self):
            import torch

            built = object()
            return lambda unit: (os.getpid(), id(built), torch.get_num_threads())

    pool = RayPool(workers=2)
    with pool.crew(Counted()) as crew:
        seen = {result for _, result in crew.map(range(20))}
    assert len({pid for pid, _, _ in seen}) == len(seen) <= 2
    assert {threads for _, _, threads in seen} == {1}


def test_all_cpus_are_used_by_default(as_work):
    pool = RayPool()
    assert pool.workers == 4
    assert pool.device("auto") == "cpu"

    def wait(unit):
        time.sleep(0.3)
        return os.getpid()

    with pool.crew(as_work(wait)) as crew:
        assert len(set(results_by_unit(crew, range(40)).values())) == 4


def test_units_are_taken_from_the_iterator_on_demand(as_work):
    taken = []

    def units():
        for unit in range(30):
            taken.append(unit)
            yield unit

    with RayPool(workers=2).crew(as_work(lambda unit: time.sleep(0.1))) as crew:
        for done, _ in enumerate(crew.map(units()), start=1):
            assert len(taken) <= done + 8
    assert taken == list(range(30))


def test_a_unit_that_raises_is_retried_and_then_reported_with_its_traceback(as_work, tmp_path):
    def once(unit):
        marker = tmp_path / str(unit)
        if unit == 3 and not marker.exists():
            marker.touch()
            raise ValueError("first time")
        return unit

    def always(unit):
        if unit == "track 7":
            raise ValueError("the wheel came off")
        return unit

    with RayPool(workers=2).crew(as_work(once)) as crew:
        assert results_by_unit(crew, range(6)) == {unit: unit for unit in range(6)}
    with RayPool(workers=1, retries=2).crew(as_work(always)) as crew:
        answers = []
        with pytest.raises(UnitFailed, match=r"track 7 failed 2 times") as caught:
            answers.extend(crew.map(["a", "b", "track 7", "c"]))
    assert caught.value.unit == "track 7"
    assert "ValueError: the wheel came off" in str(caught.value)
    assert "in always" in str(caught.value)


@pytest.mark.parametrize("kind", [UserError, Failure])
def test_user_errors_and_failures_are_raised_unchanged_without_retries(as_work, tmp_path, kind):
    def stop(unit):
        with (tmp_path / "tries").open("a") as file:
            file.write("x")
        raise kind("set --this")

    with RayPool(workers=1).crew(as_work(stop)) as crew, pytest.raises(kind, match="set --this"):
        list(crew.map([1]))
    assert (tmp_path / "tries").read_text() == "x"


def test_results_that_cannot_be_pickled_fail_their_unit(as_work):
    import threading

    pool = RayPool(workers=1, retries=2)
    with pool.crew(as_work(lambda unit: threading.Lock())) as crew, pytest.raises(UnitFailed, match="pickle"):
        list(crew.map([1]))


def test_results_of_an_abandoned_map_do_not_leak_into_the_next(as_work):
    def slow(unit):
        time.sleep(0.5 if unit < 0 else 0)
        return unit

    with RayPool(workers=2).crew(as_work(slow)) as crew:
        next(iter(crew.map([1, -1, -2])))
        assert results_by_unit(crew, [1, 2, 3]) == {1: 1, 2: 2, 3: 3}


def test_an_idle_worker_gets_a_copy_of_a_straggler_and_the_first_result_counts(as_work, tmp_path):
    def play(unit):
        try:
            (tmp_path / str(unit)).touch(exist_ok=False)
        except FileExistsError:
            return "second"
        time.sleep(30 if unit == 5 else 0.05)
        return "first"

    pool = RayPool(workers=2)
    with pool.crew(as_work(play)) as crew:
        start = time.monotonic()
        results = results_by_unit(crew, range(8))
        assert time.monotonic() - start < 20
        assert results[5] == "second"
        assert 1 <= pool.stats.reissued <= 2  # the straggler, and a unit that waits behind it
        assert pool.stats.restarts == 0
        start = time.monotonic()  # the slow worker is still busy; the other continues
        assert len(results_by_unit(crew, range(100, 110))) == 10
        assert time.monotonic() - start < 20


def test_workers_are_recycled_after_a_number_of_units(as_work):
    pool = RayPool(workers=2, recycle_units=10)
    with pool.crew(as_work(lambda unit: os.getpid())) as crew:
        pids = set()
        end = time.monotonic() + 60
        while pool.stats.recycled < 2:  # one at a time, so that one worker is always available
            assert time.monotonic() < end
            pids |= set(results_by_unit(crew, range(20)).values())
            time.sleep(0.2)
        pids |= set(results_by_unit(crew, range(20)).values())
    assert len(pids) >= 3
    assert pool.stats.requeued == 0


def test_an_interrupt_leaves_no_worker_behind(as_work):
    def interrupted():
        with RayPool(workers=2).crew(as_work(lambda unit: time.sleep(0.2))) as crew:
            next(iter(crew.map(range(1000))))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    end = time.monotonic() + 20
    while ray.available_resources().get("CPU") != 4:
        assert time.monotonic() < end
        time.sleep(0.2)


class Steps:
    """A task that resumes from its marker files and can kill its own process."""

    threads, device = 0, "cpu"

    def __init__(self, folder, count, kill_at=(), error=None, pause=0.0):
        self.folder, self.count, self.kill_at, self.error, self.pause = folder, count, kill_at, error, pause

    def run(self):
        for step in range(len(list(self.folder.iterdir())), self.count):
            yield step
            time.sleep(self.pause)
            (self.folder / str(step)).touch()
            if step in self.kill_at:
                os.kill(os.getpid(), 9)
        if self.error:
            raise self.error


def test_a_task_reports_in_order(tmp_path):
    assert list(RayPool().stream(Steps(tmp_path, 100))) == list(range(100))


def test_a_task_whose_process_dies_resumes_from_its_checkpoint(tmp_path):
    reports = list(RayPool().stream(Steps(tmp_path, 10, kill_at=(3, 7))))
    assert sorted(set(reports)) == sorted(reports)
    assert reports[-1] == 9
    assert len(list(tmp_path.iterdir())) == 10


def test_a_task_that_always_dies_fails(tmp_path):
    class Dies(Steps):
        def run(self):
            os.kill(os.getpid(), 9)
            yield

    with pytest.raises(Failure, match="was lost 2 times"):
        list(RayPool(max_deaths=2).stream(Dies(tmp_path, 1)))


@pytest.mark.parametrize("error", [UserError("set --that"), Failure("diverged"), ZeroDivisionError("division")])
def test_errors_of_a_task_keep_their_type(tmp_path, error):
    reports = []
    with pytest.raises(type(error), match=str(error)):
        reports.extend(RayPool().stream(Steps(tmp_path, 3, error=error)))


def test_an_interrupted_task_stops(tmp_path):
    for step in RayPool().stream(Steps(tmp_path, 1000, pause=0.1)):
        if step == 3:
            break
    time.sleep(1)
    count = len(list(tmp_path.iterdir()))
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) == count


def test_an_unreachable_address_is_a_user_error_that_names_the_fix():
    code = "from cluster import runtime; runtime.connect({!r})"
    for address in ("127.0.0.1:1", "ray://somewhere:10001", "nonsense"):
        run = subprocess.run([sys.executable, "-c", code.format(address)], capture_output=True, text=True, timeout=60)
        assert "UserError" in run.stderr
        assert "unset RAY_ADDRESS" in run.stderr


def test_an_embedded_ray_ignores_other_clusters_and_prints_nothing(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        "from cluster import runtime\n"
        "from cluster.pool import RayPool\n"
        "class Work:\n"
        "    threads = 0\n"
        "    def build(self):\n"
        "        return lambda unit: print('a worker prints') or unit * 2\n"
        "runtime.connect(num_cpus=2)\n"
        "pool = RayPool()\n"
        "with pool.crew(Work()) as crew:\n"
        "    answers = sorted(crew.map(range(5)))\n"
        "import json, ray\n"
        "print(json.dumps([pool.workers, answers]))\n"
        "runtime.disconnect()\n"
    )
    deep = tmp_path / ("a" * 60)
    deep.mkdir()
    env = {**os.environ, "PYTHONPATH": str(Path(runtime.__file__).parents[1]), "TMPDIR": str(deep)}
    env.pop("RAY_ADDRESS", None)
    env.pop("RAY_AUTH_MODE", None)
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env, timeout=120)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [2, [[unit, unit * 2] for unit in range(5)]]
