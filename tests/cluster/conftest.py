"""One small Ray cluster for all tests here; those that need other nodes add and remove them."""

import os
from dataclasses import dataclass
from typing import Any

import pytest

# A killed node is noticed in seconds instead of a quarter of a minute. Read when Ray starts.
os.environ.update(
    RAY_health_check_initial_delay_ms="0",
    RAY_health_check_period_ms="1000",
    RAY_health_check_timeout_ms="2000",
    RAY_health_check_failure_threshold="3",
)
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@dataclass(frozen=True)
class Do:
    """Work that is one function."""

    function: Any
    threads: int = 0

    def build(self) -> Any:
        return self.function


@pytest.fixture
def do() -> type[Do]:
    return Do


@pytest.fixture(scope="package")
def cluster():
    import sys

    import ray
    from ray.cluster_utils import Cluster

    from cluster import runtime

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import tests
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "object_store_memory": 128 * 2**20})
    runtime.connect(made.address)
    yield made
    runtime.disconnect()
    made.shutdown()


@pytest.fixture
def node(cluster):
    """Adds nodes that are gone after the test."""
    added = []

    def add(num_cpus: int = 1, **options: Any) -> Any:
        added.append(cluster.add_node(num_cpus=num_cpus, object_store_memory=80 * 2**20, **options))
        return added[-1]

    yield add
    for one in added:
        if one in cluster.worker_nodes:
            cluster.remove_node(one, allow_graceful=True)
