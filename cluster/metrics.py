"""What Prometheus gets to know, through Ray's own exporter on each node: of the driver, and of each worker.

All names begin with ray_wm_; docs/grafana.json is a board that shows them.
"""

from dataclasses import dataclass
from typing import Any

from ray.util.metrics import Counter, Gauge

from wm.pool import Progress

# Of a stage's progress, the figures that are shown, and their names there.
SHOWN = {"env_steps": "env_steps", "frames": "env_steps", "best": "best_score", "mean": "mean_score", "score": "score"}


@dataclass
class Stats:
    """What happened, for metrics and tests."""

    workers: int = 0  # ready now
    units: int = 0  # answered
    hired: int = 0
    died: int = 0  # workers lost with their process or node
    hung: int = 0  # workers killed for their silence
    recycled: int = 0
    requeued: int = 0  # units given out again because their worker was lost
    reissued: int = 0  # units given to a second worker because the first was slow

    @property
    def restarts(self) -> int:
        return self.died + self.hung


class DriverMetrics:
    """How far the stage is, and how its workers are."""

    def __init__(self) -> None:
        self.gauges: dict[str, Gauge] = {}

    def progress(self, progress: Progress) -> None:
        self._set("done", progress.done, stage=progress.stage)
        self._set("total", progress.total, stage=progress.stage)
        if progress.unit == "generations":
            self._set("generation", progress.done, stage=progress.stage)
        for name, shown in SHOWN.items():
            if name in progress.metrics:
                self._set(shown, progress.metrics[name], stage=progress.stage)

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
    """What one worker has done."""

    def __init__(self) -> None:
        self.units: Any = Counter("wm_worker_units", "units done", tag_keys=("kind",))
        self.seconds: Any = Counter("wm_worker_seconds", "seconds spent on them")

    def did(self, kind: str, seconds: float) -> None:
        self.units.inc(1, tags={"kind": kind})
        self.seconds.inc(max(seconds, 1e-9))
