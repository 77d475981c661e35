"""The utilisation of a large cluster, simulated by workers that sleep as long as their episodes would take.

Sleeping needs no CPU, so one machine can run as many workers as a cluster, with the real driver, CMA-ES and Ray.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from jobs.benchmarks.measure import Row
from wm.evolution.cma_es import Evolution

POPULATION, EPISODES, SIZE = 64, 16, 867  # the paper's CarRacing
STEPS, SPREAD = 850, 90  # mean length of an episode and its standard deviation
RATE = 2_500  # steps per second of one worker
WORKERS = (96, 200)
UNITS = (4, 2, 1)  # episodes in a unit
GENERATIONS = 4


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
                while pool.stats.workers < workers:  # until all have started
                    list(crew.map([0.01] * workers))
                for each in UNITS:
                    share, most = _share(crew, workers, each)
                    name = f"share of {workers} simulated workers' time that is work, units of {each} episodes"
                    rows.append(Row(f"{name} (bound {most:.0%})", share, ""))
        finally:
            pool.close()
            if started:
                ray.shutdown()
    return rows


def _share(crew: object, workers: int, each: int) -> tuple[float, float]:
    """Work over the time of all workers, and the most that the number of units allows."""
    evolution = Evolution(SIZE, POPULATION, 0.1, "full", seed=1)
    rng = np.random.default_rng(1)
    worked, began = 0.0, time.perf_counter()
    for _ in range(GENERATIONS):
        thetas = evolution.ask()
        worked += sum(result for _, result in crew.map(_units(rng, each)))  # type: ignore[attr-defined]
        evolution.tell(-(thetas**2).sum(1))
    wall = time.perf_counter() - began
    units = POPULATION * EPISODES // each
    return worked / (workers * wall), units / (workers * -(-units // workers))


def _units(rng: np.random.Generator, each: int) -> Iterator[float]:
    """Seconds of each unit of a generation."""
    lengths = rng.normal(STEPS, SPREAD, (POPULATION * EPISODES // each, each)).clip(100, 1000)
    yield from (lengths.sum(axis=1) / RATE).tolist()
