"""The utilisation of a large cluster, simulated by workers that sleep as long as their episodes would take.

Sleeping needs no CPU, so one machine can run as many workers as a cluster, with the real driver, CMA-ES and Ray.
"""

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.benchmarks.measure import Row
from wm.evolution.cma_es import Evolution
from wm.pool import Crew

POPULATION, EPISODES, SIZE = 64, 16, 867  # the paper's CarRacing
STEPS, SPREAD = 850, 90  # mean length of an episode and its standard deviation
RATE = 2_500  # steps per second of one worker
WORKERS = (96, 200)
UNITS = (4, 2, 1)  # episodes in a unit
GENERATIONS = 4
AT_ONCE = 16  # workers that start together


@dataclass(frozen=True)
class Sleep:
    """Sleeps for the seconds in the unit."""

    threads: int = 0

    def build(self) -> Callable[[float], float]:
        def do(seconds: float) -> float:
            time.sleep(seconds)
            return seconds

        return do


def simulation(seconds: float) -> list[Row]:
    """`seconds` is not used: a generation takes as long as it would on the cluster."""
    import ray

    from cluster.pool import RayPool
    from cluster.runtime import connect

    started = not ray.is_initialized()
    rows = []
    for workers in WORKERS:
        connect(num_cpus=workers)
        pool = RayPool(workers=workers)
        try:
            with pool.crew(Sleep()) as crew:
                _start(crew, pool.stats, workers)
                for each in UNITS:
                    share, most = _share(crew, workers, each)
                    name = f"share of {workers} simulated workers' time that is work, units of {each} episodes"
                    rows.append(Row(f"{name} (bound {most:.0%})", share, ""))
        finally:
            pool.close()
            if started:
                ray.shutdown()
    return rows


def _start(crew: Crew, stats: Any, workers: int) -> None:
    """A few at a time: hundreds of processes that start together on a few cores take longer than the pool waits."""
    while stats.workers < workers:
        wanted = min(workers, stats.workers + AT_ONCE)
        while stats.workers < wanted:
            list(crew.map([1.0] * wanted))


def _share(crew: Crew, workers: int, each: int) -> tuple[float, float]:
    """Work over the time of all workers, and the most that any driver reaches which cannot know how long a unit takes.

    The first generation is not measured: from then on the pool knows how long a unit takes on average.
    """
    evolution = Evolution(SIZE, POPULATION, 0.1, "full", seed=1)
    generations = _generations(each)
    ideal, began = 0.0, 0.0
    for number, units in enumerate(generations):
        if number == 1:
            began = time.perf_counter()
        thetas = evolution.ask()
        for _ in crew.map(units):
            pass
        evolution.tell(-(thetas**2).sum(1))
        ideal += _ideal(units, workers) if number else 0.0
    wall = time.perf_counter() - began
    work = sum(map(sum, generations[1:])) / workers
    return work / wall, work / ideal


def _generations(each: int) -> list[list[float]]:
    """Seconds of each unit of each generation."""
    rng = np.random.default_rng(1)
    shape = (1 + GENERATIONS, POPULATION * EPISODES // each, each)
    return (rng.normal(STEPS, SPREAD, shape).clip(100, 1000).sum(axis=2) / RATE).tolist()


def _ideal(units: list[float], workers: int) -> float:
    """Seconds of a generation if each worker begins the next unit in the moment in which it has finished one."""
    ends = [0.0] * workers
    for unit in units:
        heapq.heapreplace(ends, ends[0] + unit)
    return max(ends)
