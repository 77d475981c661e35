"""The cost of dispatching empty units through Ray, and of CMA-ES."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jobs.benchmarks.measure import Row
from wm.evolution.cma_es import Evolution

WORKERS, UNITS, SIZE = 32, 1024, 867


@dataclass(frozen=True)
class Nothing:
    """Work that does nothing; without threads to set, its workers import no libraries."""

    threads: int = 0

    def build(self) -> Callable[[int], int]:
        return lambda unit: unit


def dispatch(seconds: float) -> list[Row]:
    import ray

    from cluster.pool import RayPool
    from cluster.runtime import connect

    started = not ray.is_initialized()
    connect(num_cpus=WORKERS)
    pool = RayPool(workers=WORKERS)
    try:
        with pool.crew(Nothing()) as crew:
            while pool.stats.workers < WORKERS:  # until all have started
                assert len(list(crew.map(range(UNITS)))) == UNITS
            start, rounds = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                assert len(list(crew.map(range(UNITS)))) == UNITS
                rounds += 1
            each = (time.perf_counter() - start) / rounds
    finally:
        pool.close()
        if started:
            ray.shutdown()
    evolution = Evolution(SIZE, 64, 0.1, "full", seed=1)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        thetas = evolution.ask()
        evolution.tell(-(thetas**2).sum(1))
        times.append(time.perf_counter() - start)
    cma = float(np.median(times[1:]))
    return [
        Row(f"dispatch of empty units, {WORKERS} workers", UNITS / each, "units/s"),
        Row(f"CMA-ES, {SIZE} parameters, population 64", cma, "s/generation"),
        Row(f"driver, one generation of {UNITS} units, including CMA-ES", each + cma, "s/generation"),
    ]
