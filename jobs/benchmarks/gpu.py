"""Check and benchmark a GPU: `python -m jobs.bench gpu`.

It needs torch, numpy and a checkout of this project, no installation and no data: `python -m jobs.benchmarks.gpu`. It
takes about six minutes; after --minutes it skips what is left. `--device cpu` only shows that everything runs.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from jobs.benchmarks.bare import replace_missing

MISSING = replace_missing()

from jobs.benchmarks import gpu_checks as checks  # noqa: E402
from jobs.benchmarks.gpu_data import Precision, dream, memory_learner, thetas, vision_learner  # noqa: E402
from wm.errors import UserError  # noqa: E402
from wm.models.device import FLOAT32, description, prepare  # noqa: E402
from wm.training.learner import Learner  # noqa: E402

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
Figure = tuple[str, float | None, str]  # what, how much, the unit or why there is none
Measurement = tuple[str, Callable[[], Figure]]


class Bench:
    def __init__(self, device: str, seconds: float, small: bool):
        self.device, self.seconds, self.small = device, seconds, small

    def wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def rate(self, work: Callable[[], int], warm_up: int = 3) -> float:
        """Items per second, including what the GPU has not finished when `work` returns."""
        for _ in range(warm_up):
            work()
        self.wait()
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < self.seconds:
            done += work()
        self.wait()
        return done / (time.perf_counter() - start)

    def updates(self, learner: Learner, each: int) -> float:
        batches, numbers = learner.batches(0), itertools.count()

        def update() -> int:
            learner.step(next(numbers), next(batches))
            return each

        return self.rate(update, warm_up=1 if self.small else 5)

    def all(self) -> Iterator[Measurement]:
        """In the order of their importance, since time may run out."""
        for name, precision in () if self.small else checks.CASES:
            about = f"{name}, {precision}"
            yield f"{about}: agrees with the CPU", self.check(checks.training_agrees_with_the_cpu, name, precision)
            yield f"{about}: repeats, resumes", self.check(checks.training_repeats, name, precision)
        if self.device != "cpu":
            yield "the LSTM's type under bfloat16", self.check(checks.lstm_keeps_its_precision)
        yield "a recorded dream", self.check(checks.dream_agrees_with_its_recording)
        yield "a recorded dream with Box actions", self.check(checks.box_actions_can_be_recorded)
        for batch in (8,) if self.small else (128, 32, 512):
            for precision in PRECISIONS[: 1 if self.small else 2]:
                for streamed in (False,) if self.small else (False, True):
                    where = "frames streamed" if streamed else "frames on the GPU"
                    name = f"V, batch {batch}, {precision}, {where}"
                    yield name, self.vision(batch, precision, streamed, recorded=True)
            if not self.small:
                yield f"V, batch {batch}, float32, one kernel at a time", self.vision(batch, "float32", False, False)
        for preset in ("car-racing-small",) if self.small else ("car-racing", "doom", "car-racing-small", "doom-small"):
            for precision in PRECISIONS[: 1 if self.small else 2]:
                yield f"M of {preset}, {precision}", self.memory(preset, precision, recorded=True)
            if not self.small:
                yield f"M of {preset}, float32, one kernel at a time", self.memory(preset, "float32", False)
        for size in (64,) if self.small else (16_384, 8_192, 2_048, 512):
            for float32 in (FLOAT32,) if self.small else ("tf32", "ieee"):
                yield f"dreams, {size:,} at a time, {float32}", self.dreams(size, float32)
        yield "profile of M", self.profile(self.paper_memory)
        if not self.small:
            yield "profile of V", self.profile(lambda: vision_learner(self.device, batch=128))
        yield "readers", self.readers

    def check(self, run: Callable[..., str], *arguments: Any) -> Callable[[], Figure]:
        return lambda: ("ok", None, run(*arguments, self.device))

    def vision(self, batch: int, precision: Precision, streamed: bool, recorded: bool) -> Callable[[], Figure]:
        def measure() -> Figure:
            learner = vision_learner(self.device, precision, batch)
            learner.recorded = recorded
            if streamed:
                learner._fits = lambda: False  # type: ignore[method-assign]
            return "", self.updates(learner, batch), "frames/s"

        return measure

    def memory(self, preset: str, precision: Precision, recorded: bool) -> Callable[[], Figure]:
        def measure() -> Figure:
            learner = memory_learner(self.device, precision, preset)
            learner.recorded = recorded
            return "", self.updates(learner, 1), "updates/s"

        return measure

    def paper_memory(self) -> Learner:
        return memory_learner(self.device, preset="car-racing-small" if self.small else "car-racing")

    def dreams(self, size: int, float32: str) -> Callable[[], Figure]:
        def measure() -> Figure:
            prepare(self.device, float32)
            made = dream(self.device)
            theta = thetas(made, size // 16)
            try:
                return "", self.rate(lambda: int(made.rollout(theta, 1, 16)[1].sum()), warm_up=1), "steps/s"
            finally:
                prepare(self.device)

        return measure

    def profile(self, make: Callable[[], Learner]) -> Callable[[], Figure]:
        def measure() -> Figure:
            learner, steps = make(), 1 if self.small else 30
            batches = learner.batches(0)
            for number in range(1 if self.small else 3):
                learner.step(number, next(batches))
            self.wait()
            with torch.profiler.profile() as profiled:
                for number in range(steps):
                    learner.step(number, next(batches))
                self.wait()
            key = "self_cuda_time_total" if self.device != "cpu" else "self_cpu_time_total"
            print(profiled.key_averages().table(sort_by=key, row_limit=12, max_name_column_width=60), file=sys.stderr)
            return "see above", None, f"{steps} steps"

        return measure

    def readers(self) -> Figure:
        if MISSING:
            return "skipped", None, f"needs {', '.join(MISSING)}"
        from jobs.benchmarks.data import by_readers

        rates = by_readers(self.seconds, (1, 4, 8, 16))
        return ", ".join(f"{readers}: {rate:,.0f}" for readers, rate in rates.items()), None, "frames/s from disk"


def machine(device: str) -> list[str]:
    about = [f"torch {torch.__version__}, CUDA {torch.version.cuda}, numpy {np.__version__}"]
    if device != "cpu":
        query = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader")
        about.append(subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip())
        about.append(json.dumps(description(torch.device(device))))
    return about


def run(device: str, seconds: float, minutes: float, small: bool) -> list[dict[str, Any]]:
    """Print a table, line by line, and return it. A failed check does not stop the others."""
    prepare(device)
    torch.set_num_threads(2)
    for line in machine(device):
        print(line, file=sys.stderr)
    end, rows = time.monotonic() + 60 * minutes, []
    for what, measure in Bench(device, seconds, small).all():
        if time.monotonic() > end:
            found: Figure = ("skipped", None, f"{minutes:g} minutes are over")
        else:
            try:
                found = measure()
            except UserError:
                raise
            except Exception as error:
                found = ("FAILED", None, f"{type(error).__name__}: {error}"[:300])
        text, figure, unit = found
        print(f"{what:<52} {text or f'{figure:,.0f}':>14} {unit}", file=sys.stderr, flush=True)
        rows.append({"what": what, "result": text, "figure": figure, "unit": unit})
    return rows


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.bench gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds per measurement (default 3)")
    parser.add_argument("--minutes", type=float, default=14.0, help="then the rest is skipped (default 14)")
    arguments = parser.parse_args(words)
    try:
        rows = run(arguments.device, arguments.seconds, arguments.minutes, small=arguments.device == "cpu")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"job": "bench", "figures": rows}))
    return int(any(row["result"] == "FAILED" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
