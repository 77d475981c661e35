"""Measuring rates: some seconds for each benchmark, alternating with its baseline, on one core where stated."""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from wm.pool import set_threads


@dataclass(frozen=True)
class Row:
    what: str
    figure: float
    unit: str
    plain: float | None = None  # the baseline's figure, measured in the same run

    @property
    def ratio(self) -> float | None:
        return self.figure / self.plain if self.plain else None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio}


def rate(work: Callable[[], int], seconds: float, warm_up: bool = True) -> float:
    """Items per second; each call of `work` returns how many it processed."""
    if warm_up:
        work()
    start, done = time.perf_counter(), 0
    while True:
        done += work()
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return done / elapsed


def rates(works: list[Callable[[], int]], seconds: float, turns: int = 3) -> list[float]:
    """Median rates of several implementations, measured alternately so that noise affects all of them."""
    found: list[list[float]] = [[] for _ in works]
    for turn in range(turns):
        for work, values in zip(works, found, strict=True):
            values.append(rate(work, seconds / turns, warm_up=turn == 0))
    return [sorted(values)[len(values) // 2] for values in found]


def elsewhere(make: Callable[..., Callable[[], int]], *arguments: Any, seconds: float) -> float:
    """The rate of the function that `make` returns, in a separate process without this project's settings."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_rate_of, make, arguments, seconds).result()


def _rate_of(make: Callable[..., Callable[[], int]], arguments: tuple[Any, ...], seconds: float) -> float:
    return rate(make(*arguments), seconds)


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """This thread and those it starts stay on one core, where the system lets us choose."""
    set_threads(1)
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
