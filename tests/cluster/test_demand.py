"""Requests to an autoscaling cluster: no more workers than needed, on the nodes with the right label."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster import runtime, training, workers
from cluster.pool import RayPool
from cluster.runtime import NodeType

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import the tests
pytestmark = pytest.mark.usefixtures("cluster")
FILE = Path(__file__).resolve().parents[2] / "ray_cluster.yaml"


@pytest.fixture
def autoscaling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretends that the autoscaler can add five nodes with four CPUs and two with a GPU."""
    monkeypatch.setattr(runtime, "planned", lambda: [NodeType("rollout", 4, 0, 5), NodeType("train", 8, 1, 2)])


def test_node_types_are_read_from_the_cluster_file() -> None:
    runtime._node_types.cache_clear()
    assert runtime._node_types(str(FILE)) == [NodeType("rollout", 16, 0, 300), NodeType("train", 8, 1, 2)]
    assert runtime._node_types("/nowhere.yaml") == []


def test_an_invalid_cluster_file_is_logged_and_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, content in enumerate(("[", "a: 1", "1")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(content)
        assert runtime._node_types(str(path)) == []
    assert caplog.text.count("can't read") == 3


def test_a_stage_requests_one_worker_per_unit_while_there_are_no_nodes(
    as_work: Any, node: Callable[..., Any], autoscaling: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "DOWNSCALE_DELAY_SECONDS", 0.5)
    pool, answers = RayPool(), []
    with pool.crew(as_work(lambda unit: time.sleep(0.8) or unit)) as crew:
        stage = threading.Thread(target=lambda: answers.extend(crew.map(range(9))))
        stage.start()
        group = crew.group  # type: ignore[attr-defined]
        until(lambda: len(group.workers) == 9)
        time.sleep(2)
        assert len(group.workers) == 9  # of the 20 that are possible
        assert all(worker.labelled and not worker.node for worker in group.workers)  # none on nodes with another role
        node(num_cpus=2, labels={runtime.ROLE: "rollout"})  # the first node that the autoscaler starts
        stage.join(60)
        assert sorted(unit for unit, _ in answers) == list(range(9))
        assert len(group.workers) <= 4  # requests without remaining units were withdrawn
    assert pool.stats.started <= 12


def test_a_training_task_requests_a_node_with_the_train_role(autoscaling: None) -> None:
    class Task:
        threads, device = 6, "cuda"

    assert RayPool().gpus == 2
    assert training._place(Task()) == {"num_gpus": 1, "num_cpus": 1, "label_selector": {runtime.ROLE: "train"}}
    Task.device = "cpu"
    assert training._place(Task()) == {"num_cpus": 6}


def test_gpu_workers_leave_the_cpus_to_other_workers(as_work: Any, node: Callable[..., Any]) -> None:
    gpu_node = node(num_cpus=1, num_gpus=2, labels={runtime.ROLE: "train"})

    def where(unit: int) -> Any:
        import ray

        time.sleep(0.2)
        return ray.get_runtime_context().get_node_id(), ray.get_runtime_context().get_accelerator_ids()["GPU"]

    pool = RayPool(workers=5)  # all CPUs, including the one on the GPU node
    with pool.crew(as_work(where), gpu=True) as dreams, pool.crew(as_work(where)) as games:
        played = [answer for _, answer in games.map(range(20))]
        dreamt = [answer for _, answer in dreams.map(range(20))]
    assert {node_id for node_id, _ in dreamt} == {gpu_node.node_id}
    assert {tuple(gpus) for _, gpus in dreamt} == {("0",), ("1",)}
    assert all(not gpus for _, gpus in played)


def test_a_cluster_without_autoscaling_has_no_planned_nodes() -> None:
    assert runtime.planned() == []
    assert RayPool().gpus == 0


def until(ready: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.02)
