"""Placement on nodes with GPUs. Ray counts them; no GPU is used, so they need not exist."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster import runtime, training
from cluster.pool import RayPool
from cluster.runtime import NodeType
from cluster.tune import bundles, run_trials
from wm.config.presets import PRESETS
from wm.errors import UserError
from wm.experiments.trials import Place, Trial
from wm.pool import Progress
from wm.stages.vision import VisionTraining

GPU_NODE = {"num_cpus": 1, "num_gpus": 2, "labels": {runtime.ROLE: "train"}}


@pytest.fixture(autouse=True)
def _soon(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "GPU_POLL_SECONDS", 0.2)


def where() -> tuple[int, list[str]]:
    """The process and its GPUs."""
    import os

    return os.getpid(), ray.get_runtime_context().get_accelerator_ids()["GPU"]


class Training:
    """A task that reports where it runs, until its file of steps is full."""

    threads = 0

    def __init__(self, folder: Any = None, steps: int = 1, device: str = "cuda", pause: float = 0.0):
        self.folder, self.steps, self.device, self.pause = folder, steps, device, pause

    def run(self) -> Any:
        done = len(list(self.folder.iterdir())) if self.folder else 0
        for step in range(done, self.steps):
            yield step, where()
            time.sleep(self.pause)
            if self.folder:
                (self.folder / str(step)).touch()


def test_auto_goes_on_with_the_cpu_if_no_planned_gpu_starts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtime, "planned", lambda: [NodeType("train", 8, 1, 2)])
    began = time.monotonic()
    assert RayPool(gpu_seconds=1).device("auto") == "cpu"
    assert 1 <= time.monotonic() - began < 20
    assert "waiting for a node with a GPU, for 1 s at most" in caplog.text
    assert "within 1 s (--workers.gpu-seconds): training on the CPU" in caplog.text
    assert RayPool(gpu_seconds=1).device("cuda") == "cuda"  # it was asked for, so it is waited for


def test_auto_uses_the_gpu_of_a_node_that_starts_in_time(
    node: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "planned", lambda: [NodeType("train", 8, 1, 2)])
    monkeypatch.setattr(training, "_gpu_problem", ray.remote(max_calls=1)(lambda: ""))  # as with CUDA
    found: list[str] = []
    waiting = threading.Thread(target=lambda: found.append(RayPool(gpu_seconds=60).device("auto")))
    waiting.start()
    time.sleep(1)
    assert found == []
    node(**GPU_NODE)
    waiting.join(60)
    assert found == ["cuda"]


@pytest.mark.skipif("__import__('torch').version.cuda is not None", reason="torch has CUDA here")
def test_a_gpu_that_torch_cannot_use_is_no_traceback(
    node: Callable[..., Any], as_work: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Ray counts GPUs also where torch is a CPU build."""
    node(**GPU_NODE)
    pool = RayPool()
    assert pool.device("auto") == "cpu"
    assert "is built without CUDA: training on the CPU" in caplog.text
    config = PRESETS["tiny"]
    task = VisionTraining(None, "/tmp", "vision", "cuda", 1.0, config.vision, None, 1)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"can't use cuda: torch .* is built without CUDA: install"):
        list(pool.stream(task))
    with pool.crew(as_work(prepare_gpu), gpu=True) as crew, pytest.raises(UserError, match="can't use cuda"):
        list(crew.map([1]))


def prepare_gpu(unit: int) -> None:
    """As the work of dreams does."""
    from wm.models.device import prepare

    prepare("cuda")


def test_the_process_of_a_training_ends_with_it(node: Callable[..., Any]) -> None:
    """Otherwise it would keep the GPU's memory while other processes use it."""
    node(**GPU_NODE)
    pids = [pid for _ in range(2) for _, (pid, _) in RayPool().stream(Training())]
    assert len(set(pids)) == 2


def test_one_training_and_several_crews_of_dreams_on_two_gpus(node: Callable[..., Any], as_work: Any) -> None:
    """The training has one GPU to itself. The crews share the other one, one after the other."""
    node(**GPU_NODE)
    reports: list[Any] = []
    task = Training(steps=40, pause=0.2)
    runs = threading.Thread(target=lambda: reports.extend(RayPool().stream(task)))
    runs.start()
    until(lambda: len(reports) > 0)
    dreamt = []
    for _ in range(2):
        with RayPool().crew(as_work(lambda unit: where()), gpu=True) as crew:
            dreamt += [answer for _, answer in crew.map(range(6))]
    runs.join(60)
    assert len(reports) == 40
    own, others = {tuple(gpus) for _, (_, gpus) in reports}, {tuple(gpus) for _, gpus in dreamt}
    assert len(own) == len(others) == 1
    assert own | others == {("0",), ("1",)}


def test_two_trainings_run_side_by_side_on_two_gpus(node: Callable[..., Any]) -> None:
    """As those of two jobs do."""
    node(**(GPU_NODE | {"num_cpus": 2}))
    barrier: list[list[Any]] = [[], []]
    tasks = [Training(steps=20, pause=0.2) for _ in barrier]
    runs = [
        threading.Thread(target=lambda task=task, into=into: into.extend(RayPool().stream(task)))
        for task, into in zip(tasks, barrier, strict=True)
    ]
    for each in runs:
        each.start()
    until(lambda: all(0 < len(into) < 20 for into in barrier))
    for each in runs:
        each.join(60)
    assert {gpus[0] for into in barrier for _, (_, gpus) in into} == {"0", "1"}


def test_a_training_whose_gpu_node_is_lost_resumes_on_another(
    node: Callable[..., Any], cluster: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first, reports = node(**GPU_NODE), []
    for step, (pid, gpus) in RayPool().stream(Training(tmp_path, steps=30, pause=0.1)):
        reports.append((step, pid, gpus))
        if step == 5 and first in cluster.worker_nodes:
            cluster.remove_node(first, allow_graceful=False)
            node(**GPU_NODE)
    assert reports[-1][0] == 29  # reports that the driver has not read are lost with the node
    assert len(list(tmp_path.iterdir())) == 30
    assert len({pid for _, pid, _ in reports}) == 2
    assert all(len(gpus) == 1 for *_, gpus in reports)
    assert "the task was lost" in caplog.text


def test_the_bundles_of_a_trial() -> None:
    assert bundles(1, 0) == [{"CPU": 1}]
    assert bundles(1, 1) == [{"CPU": 1, "GPU": 1}]
    assert bundles(2, 1) == [{}, {"CPU": 1}, {"CPU": 1}, {"GPU": 1}]


class TwoTrials:
    """A schedule of two trials; their result is the GPU that each had."""

    def __init__(self) -> None:
        self.left = [Trial(f"{number:04}", number, 0, {}, {}) for number in range(2)]
        self.failures: list[str] = []

    def next(self) -> Trial | None:
        return self.left.pop() if self.left else None

    def validated(self, trial: Trial, found: Any) -> bool:
        return False

    def completed(self, trial: Trial, result: Any) -> None: ...

    def failed(self, trial: Trial, reason: str) -> None:
        self.failures.append(reason)


@pytest.mark.parametrize("cpus", [1, 2])
def test_each_trial_of_a_search_has_its_own_gpu(
    cpus: int, node: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node(**(GPU_NODE | {"num_cpus": 4}))
    told: list[Progress] = []

    def run(trial: Trial, place: Place, pool: Any, tell: Callable[[Progress], None]) -> None:
        import time

        import ray

        class Work:
            threads = 0

            def build(self):  # type: ignore[no-untyped-def]
                return lambda unit: ray.get_runtime_context().get_accelerator_ids()["GPU"]

        if cpus == 1:
            gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        else:
            with pool.crew(Work(), gpu=True) as crew:
                (gpus,) = (answer for _, answer in crew.map([1]))
        time.sleep(4)  # until the other trial has one, too
        assert len(gpus) == 1, gpus
        tell(Progress("collect", 1, 1, "episodes", {"mean": float(gpus[0])}))

    schedule = TwoTrials()
    place = Place(PRESETS["tiny"], "base", str(tmp_path / "trials"), "")
    run_trials(schedule, place, cpus, 1, told.append, run)
    assert not schedule.failures
    assert sorted(progress.metrics["mean"] for progress in told) == [0.0, 1.0]


def until(ready: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.02)
