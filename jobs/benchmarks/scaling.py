"""The driver's cost of a generation on many workers: measured on as many as fit here, extrapolated beyond.

The units are those of the paper's CarRacing without any work: 64 candidates with 16 episodes each, one unit per worker.
"""

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jobs.benchmarks.measure import Row
from wm.envs.rollout import EpisodeResult
from wm.evolution.cma_es import Evolution
from wm.evolution.evaluation import GameUnit

POPULATION, EPISODES, SIZE = 64, 16, 867
MEASURED = (8, 32)  # workers, each an idle process
WANTED = (64, 256, 1024)
STEPS, RATE = 1000, 400  # per episode, and per second on one CPU of a spot node
SHARE = 0.1  # of a generation's time, above which the driver counts as the bottleneck


@dataclass(frozen=True)
class Empty:
    """Returns immediately, with results of realistic size."""

    threads: int = 0

    def build(self) -> Callable[[GameUnit], list[EpisodeResult]]:
        return lambda unit: [EpisodeResult(seed, STEPS, 900.0, False) for seed in unit.seeds]


def units(workers: int) -> list[GameUnit]:
    """A generation with one unit per worker."""
    thetas = np.zeros((POPULATION, SIZE))
    each = max(1, POPULATION * EPISODES // workers)
    made = []
    for first in range(0, POPULATION * EPISODES, each):
        candidates = [pair // EPISODES for pair in range(first, first + each)]
        made.append(
            GameUnit(
                name=f"generation 1, games from {first}",
                thetas=thetas[candidates[0] : candidates[-1] + 1],
                owner=tuple(candidate - candidates[0] for candidate in candidates),
                seeds=tuple(range(first, first + each)),
                steps=STEPS,
                patience=100,
                noise=1,
                first=first,
            )
        )
    return made


def scaling(seconds: float) -> list[Row]:
    import ray

    from cluster.pool import RayPool
    from cluster.runtime import connect

    started = not ray.is_initialized()
    connect(num_cpus=max(MEASURED))
    costs = []
    try:
        for workers in MEASURED:
            pool, work = RayPool(workers=workers), units(1024)
            with pool.crew(Empty()) as crew:
                while pool.stats.workers < workers:
                    list(crew.map(work))
                began, wall, done = time.process_time(), time.perf_counter(), 0
                while time.perf_counter() - wall < seconds:
                    done += len(list(crew.map(work)))
                costs.append((time.process_time() - began) / done)
    finally:
        if started:
            ray.shutdown()
    rows = [
        Row(f"driver, one unit, {workers} workers", cost, "s") for workers, cost in zip(MEASURED, costs, strict=True)
    ]
    slope = max(0.0, (costs[1] - costs[0]) / (MEASURED[1] - MEASURED[0]))
    begun = _cma()
    limit = 0
    for workers in sorted({*WANTED, *range(32, 4097, 32)}):
        generation = units(workers)
        own = len(generation) * (costs[0] + slope * (workers - MEASURED[0])) + begun
        whole = POPULATION * EPISODES * STEPS / RATE / workers
        limit = workers if own <= SHARE * whole else limit
        if workers in WANTED:
            bytes_ = sum(len(pickle.dumps(one)) + len(pickle.dumps(Empty().build()(one))) for one in generation)
            rows += [
                Row(f"driver, one generation on {workers} workers (extrapolated)", own, "s"),
                Row(f"sent and received, one generation on {workers} workers", bytes_ / 1e6, "MB"),
                Row(f"rollouts, one generation on {workers} workers at {RATE} steps/s", whole, "s"),
            ]
    return [*rows, Row(f"workers at which the driver takes {SHARE:.0%} of a generation", limit, "workers")]


def _cma() -> float:
    """CMA-ES itself, which does not depend on the number of workers."""
    evolution, times = Evolution(SIZE, POPULATION, 0.1, "full", seed=1), []
    for _ in range(4):
        start = time.process_time()
        thetas = evolution.ask()
        evolution.tell(-(thetas**2).sum(1))
        times.append(time.process_time() - start)
    return float(np.median(times[1:]))
