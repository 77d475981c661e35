"""Fixtures: one small Ray cluster for all tests in this package, and nodes that a test adds to it."""

import os
from dataclasses import dataclass
from typing import Any

import pytest
from processes import ROOT
from slow_game import WAIT

# Detect killed nodes within seconds instead of 15 s. Ray reads these when it starts.
os.environ.update(
    RAY_health_check_initial_delay_ms="0",
    RAY_health_check_period_ms="1000",
    RAY_health_check_timeout_ms="2000",
    RAY_health_check_failure_threshold="3",
)
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@dataclass(frozen=True)
class FunctionWork:
    """Work that calls one function."""

    function: Any
    threads: int = 0

    def build(self) -> Any:
        return self.function


@pytest.fixture
def as_work() -> type[FunctionWork]:
    return FunctionWork


@pytest.fixture(scope="package")
def cluster():
    import sys

    import ray
    from ray.cluster_utils import Cluster

    from cluster import runtime

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import the tests
    ray_cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "object_store_memory": 128 * 2**20})
    runtime.connect(ray_cluster.address)
    yield ray_cluster
    runtime.disconnect()
    ray_cluster.shutdown()


@pytest.fixture
def node(cluster):
    """Adds nodes to the cluster and removes them after the test."""
    added = []

    def add(num_cpus: int = 1, **options: Any) -> Any:
        added.append(cluster.add_node(num_cpus=num_cpus, object_store_memory=80 * 2**20, **options))
        return added[-1]

    yield add
    for each in added:
        if each in cluster.worker_nodes:
            cluster.remove_node(each, allow_graceful=True)


@pytest.fixture
def slow_game(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that start from now on find the game SLOW, which waits in each step."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    monkeypatch.setenv(WAIT, "0.02")
