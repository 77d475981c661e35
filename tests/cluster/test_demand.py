"""What a stage asks of a cluster that scales itself: as much as it can use, where it belongs, and no more."""

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

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import tests
pytestmark = pytest.mark.usefixtures("cluster")
FILE = Path(__file__).resolve().parents[2] / "ray_cluster.yaml"


@pytest.fixture
def grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """By up to five nodes of four CPUs each, which somebody has to start."""
    monkeypatch.setattr(runtime, "planned", lambda: [NodeType("rollout", 4, 0, 5), NodeType("train", 8, 1, 2)])


def test_the_clusters_file_says_what_there_may_be() -> None:
    runtime._types.cache_clear()
    assert runtime._types(str(FILE)) == [NodeType("rollout", 16, 0, 300), NodeType("train", 8, 1, 2)]
    assert runtime._types("/nowhere.yaml") == []


def test_a_file_that_is_not_one_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, content in enumerate(("[", "a: 1", "1")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(content)
        assert runtime._types(str(path)) == []
    assert caplog.text.count("can't be read") == 3


def test_with_no_node_yet_a_stage_asks_for_as_many_workers_as_it_has_units(
    do: Any, node: Callable[..., Any], grows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LINGER_SECONDS", 0.5)
    pool, answers = RayPool(), []
    with pool.crew(do(lambda unit: time.sleep(0.8) or unit)) as crew:
        stage = threading.Thread(target=lambda: answers.extend(crew.map(range(9))))
        stage.start()
        staff = crew.staff  # type: ignore[attr-defined]
        until(lambda: len(staff.hands) == 9)
        time.sleep(2)
        assert len(staff.hands) == 9  # of 20 that there could be
        assert all(hand.labelled and not hand.node for hand in staff.hands)  # none on the nodes that are not for it
        node(num_cpus=2, labels={runtime.ROLE: "rollout"})  # the first that comes
        stage.join(60)
        assert sorted(unit for unit, _ in answers) == list(range(9))
        assert len(staff.hands) <= 4  # nobody asks any longer for those there was no more work for
    assert pool.stats.hired <= 12


def test_a_training_asks_for_the_nodes_that_are_made_for_it(grows: None) -> None:
    class Task:
        threads, device = 6, "cuda"

    assert RayPool().gpus == 2
    assert RayPool().device("auto") == "cuda"
    assert training._place(Task()) == {"num_gpus": 1, "num_cpus": 1, "label_selector": {runtime.ROLE: "train"}}
    Task.device = "cpu"
    assert training._place(Task()) == {"num_cpus": 6}


def test_a_crew_on_gpus_leaves_the_cpus_to_the_others(do: Any, node: Callable[..., Any]) -> None:
    gpu_node = node(num_cpus=1, num_gpus=2, labels={runtime.ROLE: "train"})

    def where(unit: int) -> Any:
        import ray

        time.sleep(0.2)
        return ray.get_runtime_context().get_node_id(), ray.get_runtime_context().get_accelerator_ids()["GPU"]

    pool = RayPool(workers=5)  # all CPUs, those beside the GPU included
    with pool.crew(do(where), gpu=True) as dreams, pool.crew(do(where)) as games:
        played = [answer for _, answer in games.map(range(20))]
        dreamt = [answer for _, answer in dreams.map(range(20))]
    assert {node_id for node_id, _ in dreamt} == {gpu_node.node_id}
    assert {tuple(gpus) for _, gpus in dreamt} == {("0",), ("1",)}
    assert all(not gpus for _, gpus in played)


def test_what_can_not_grow_is_used_as_it_is() -> None:
    assert runtime.planned() == []
    assert RayPool().gpus == 0


def until(ready: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.02)
