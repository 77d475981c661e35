"""Exported Prometheus metrics, and the Grafana dashboard that shows them."""

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import ray

from cluster.metrics import EXPORTED
from cluster.pool import RayPool
from wm.pool import Progress

DASHBOARD = Path(__file__).resolve().parents[2] / "docs" / "grafana.json"
DRIVER = {"done", "total", "generation", "units_waiting", "units_under_way", "units_done", "workers", "restarts"}
EXPECTED = {
    f"ray_wm_{name}" for name in DRIVER | set(EXPORTED.values()) | {"worker_units_total", "worker_seconds_total"}
}


def test_the_dashboard_shows_exactly_the_exported_metrics() -> None:
    shown = {
        name
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel["targets"]
        for name in re.findall(r"ray_wm_\w+", target["expr"])
    }
    assert shown == EXPECTED


def test_the_nodes_export_all_metrics(as_work: Any, cluster: Any) -> None:
    pool = RayPool(workers=2)
    with pool.crew(as_work(lambda unit: time.sleep(0.3))) as crew:
        list(crew.map(range(8)))
        pool.tell(Progress("evolve", 3, 10, "generations", {"env_steps": 7.0, "best": 2.0, "mean": 1.0, "score": 1.5}))
        end, text = time.monotonic() + 90, ""
        while missing := EXPECTED - set(re.findall(r"^(ray_wm_\w+){", text, re.M)):
            assert time.monotonic() < end, missing
            time.sleep(1)
            text = "".join(metrics_of(node) for node in ray.nodes() if node["Alive"])
    assert re.search(r'^ray_wm_generation{.*Stage="?evolve|^ray_wm_generation{.*stage="evolve".*} 3\.0', text, re.M)


def metrics_of(node: dict[str, Any]) -> str:
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return ""
