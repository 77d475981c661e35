"""Prometheus metrics of the driver and the workers, exported by Ray on each node.

All names start with ray_wm_. docs/grafana.json is a Grafana dashboard for them.
"""

from dataclasses import dataclass
from typing import Any

from ray.util.metrics import Counter, Gauge

from wm.pool import Progress

# Stage metrics that are exported, and their Prometheus names.
EXPORTED = {
    "env_steps": "env_steps",
    "frames": "env_steps",
    "best": "best_score",
    "mean": "mean_score",
    "score": "score",
}


@dataclass
class Stats:
    """Counters of a pool, for metrics and tests."""

    workers: int = 0  # ready now
    units: int = 0  # done
    started: int = 0  # workers started
    died: int = 0  # workers lost with their process or node
    hung: int = 0  # workers killed as unresponsive
    recycled: int = 0
    requeued: int = 0  # units sent again because their worker was lost
    reissued: int = 0  # units sent to a second worker because the first was slow

    @property
    def restarts(self) -> int:
        return self.died + self.hung


class DriverMetrics:
    """Gauges for a stage's progress and its workers."""

    def __init__(self) -> None:
        self.gauges: dict[str, Gauge] = {}

    def progress(self, progress: Progress) -> None:
        self._set("done", progress.done, stage=progress.stage)
        self._set("total", progress.total, stage=progress.stage)
        if progress.unit == "generations":
            self._set("generation", progress.done, stage=progress.stage)
        for name, exported in EXPORTED.items():
            if name in progress.metrics:
                self._set(exported, progress.metrics[name], stage=progress.stage)

    def crew(self, stats: Stats, waiting: int, under_way: int) -> None:
        self._set("units_waiting", waiting)
        self._set("units_under_way", under_way)
        self._set("units_done", stats.units)
        self._set("workers", stats.workers)
        self._set("restarts", stats.restarts)

    def _set(self, name: str, value: float, **tags: str) -> None:
        if name not in self.gauges:
            self.gauges[name] = Gauge(f"wm_{name}", tag_keys=tuple(tags))
        self.gauges[name].set(value, tags=tags)


class WorkerMetrics:
    """Counters of one worker."""

    def __init__(self) -> None:
        self.units: Any = Counter("wm_worker_units", "units run, by outcome", tag_keys=("kind",))
        self.seconds: Any = Counter("wm_worker_seconds", "seconds spent running units")

    def record(self, kind: str, seconds: float) -> None:
        self.units.inc(1, tags={"kind": kind})
        self.seconds.inc(max(seconds, 1e-9))
