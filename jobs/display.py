"""Shows progress as live bars in a terminal and as periodic lines in a log."""

import logging
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column

from wm.formatting import format_duration, format_number
from wm.pool import Progress
from wm.runs.cost import cost_of
from wm.runs.manifest import Manifest

log = logging.getLogger("jobs")

MATTER = ("score", "held_out_loss", "mean", "frames")  # metrics that a terminal shows, at most two


class Display:
    """Shows the progress of each stage. Rates and remaining times only count work done by this process."""

    def __init__(self, log_seconds: float, stages: int):
        self.log_seconds, self.stages = log_seconds, stages
        self.began: dict[str, tuple[float, float]] = {}  # stage -> (start time, progress at that time)
        self.last_logged = 0.0
        self.bars: Bars | None = None
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        console = Console(stderr=True)
        live = sys.stderr.isatty()
        plain = logging.StreamHandler(sys.stderr)
        plain.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        look: Any = {"show_path": False, "show_level": False, "log_time_format": "%H:%M:%S"}
        handler = RichHandler(console=console, **look) if live else plain
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler], force=True)
        if live:
            columns = (
                TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=12)),
                BarColumn(bar_width=max(8, min(24, console.width - 64))),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True)),
            )
            self.bars = Bars(*columns, console=console)
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def tell(self, progress: Progress) -> None:
        now = time.monotonic()
        first = progress.stage not in self.began
        since, before = self.began.setdefault(progress.stage, (now, progress.done))
        text = describe(progress, now - since, before)
        if not first and progress.unit == "complete":
            return  # the stage's own reports were shown already
        if self.bars is not None:
            number = f"{len(self.began)}/{self.stages} " if self.stages > 1 else ""
            text = brief(progress, now - since, before)
            if first:
                self.tasks[progress.stage] = self.bars.add_task(
                    number + progress.stage, total=progress.total, text=text
                )
            self.bars.update(self.tasks[progress.stage], completed=progress.done, text=text)
            return
        number = f"stage {len(self.began)} of {self.stages} " if self.stages > 1 else ""
        if first or progress.done >= progress.total or now - self.last_logged >= self.log_seconds:
            self.last_logged = now
            log.info("%s%s %s", number, progress.stage, text)


def show_cost(manifests: Sequence[Manifest], uri: str) -> None:
    """Print the cost of each stage, at the end of a job."""
    rows = [cost_of(manifest) for manifest in manifests]
    print(f"{'stage':8} {'time':>8} {'steps':>14} {'':10} CPU hours  GPU hours", file=sys.stderr)
    for row in rows:
        gpu = f"{row.gpu_hours:.3g}" if row.gpu_hours else "-"
        steps = f"{row.steps:>14,} {row.unit:10}"
        print(
            f"{row.stage:8} {format_duration(row.seconds):>8} {steps} {row.cpu_hours:>9.3g} {gpu:>10}", file=sys.stderr
        )
    print(f"make a report: python -m jobs.report --run {shlex.quote(uri)}", file=sys.stderr, flush=True)


def brief(progress: Progress, seconds: float, before: float) -> str:
    """`0:18 left · score 812 · mean 640`: the time and the figures that matter, for a terminal of 80 columns."""
    own = progress.done - before
    if progress.done >= progress.total:
        parts = [f"in {format_duration(seconds)}" if own > 0 else "done"]
    elif own > 0 and seconds > 0:
        parts = [f"{format_duration((progress.total - progress.done) * seconds / own)} left"]
    else:
        parts = []
    metrics = progress.metrics
    shown = [name for name in MATTER if name in metrics][:2] or list(metrics)[:1]
    parts += [f"{name.replace('_', ' ')} {format_number(metrics[name])}" for name in shown]
    return " · ".join(parts)


def describe(progress: Progress, seconds: float, before: float) -> str:
    """`24/48 episodes · 1.3 episodes/s · 0:18 left · score -21.3`"""
    own = progress.done - before
    parts = [f"{progress.done:,.0f}/{progress.total:,.0f} {progress.unit}"]
    if own > 0 and seconds > 0:
        parts.append(f"{own / seconds:,.3g} {progress.unit}/s")
        parts.append(f"{format_duration((progress.total - progress.done) * seconds / own)} left")
    parts += [f"{name} {format_number(value)}" for name, value in progress.metrics.items()]
    return " · ".join(parts)
