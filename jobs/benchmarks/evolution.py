"""Evolution as a whole, against as many agents as there are workers, each with a full batch and nothing to wait for.

The shipped driver is evolved further with the settings of `car-racing-small`, so episodes are as long as a trained
agent's. What is lost: batches that shrink as episodes end, workers that wait for the last unit, CMA-ES, checkpoints.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jobs.benchmarks.measure import Row
from wm.agents.files import load_agent
from wm.agents.trained import Trained
from wm.agents.unpack import unpack
from wm.config.presets import PRESETS
from wm.envs import load
from wm.evolution.evaluation import EvaluateWork, GameUnit
from wm.pool import Crew, Pool
from wm.runs.run import start_run
from wm.stages.evolve import evolve

SECTION = replace(PRESETS["car-racing-small"].evolve, generations=3, validate_every=3)
FULL_STEPS = 300  # of an episode, so that none ends before the others


def evolution(seconds: float) -> list[Row]:
    """`seconds` is not used: the generations take as long as they take."""
    import ray

    from cluster.pool import RayPool
    from cluster.runtime import connect

    class CountingPool(RayPool):
        @contextmanager
        def crew(self, work: Any, gpu: bool = False) -> Iterator[Crew]:
            with super().crew(work, gpu) as crew:
                self.counted = _Counting(crew)
                yield self.counted

    started, workers, trained = not ray.is_initialized(), os.cpu_count() or 1, load_agent("car-racing")
    connect(num_cpus=workers)
    pool = CountingPool(workers=workers)
    try:
        with TemporaryDirectory() as folder:
            most = _full_batches(trained, pool, workers)
            base = unpack(trained, str(Path(folder, "base")))
            section = replace(SECTION, init=base.uri, init_sigma=0.005)
            run = start_run(str(Path(folder, "run")), "", replace(trained.config, evolve=section), base=base.uri)
            began = time.perf_counter()
            evolve(run, pool)
            reached = pool.counted.steps / (time.perf_counter() - began)
    finally:
        pool.close()
        if started:
            ray.shutdown()
    what = f"evolution, {SECTION.generations} generations of car-racing-small, {workers} workers, over full batches"
    return [Row(what, reached, "steps/s", most)]


class _Counting:
    """A crew that counts the steps of all episodes."""

    def __init__(self, crew: Crew):
        self.crew, self.steps = crew, 0

    def map(self, units: Any) -> Iterator[tuple[Any, Any]]:
        for unit, episodes in self.crew.map(units):
            self.steps += sum(episode.steps for episode in episodes)
            yield unit, episodes


def _full_batches(trained: Trained, pool: Pool, workers: int) -> float:
    """Steps per second of one unit for each worker, in which no episode ends."""
    work = EvaluateWork(load("car-racing"), trained.models.without_decoder(), threads=1)
    seeds = tuple(range(SECTION.unit_episodes))

    def units(count: int, steps: int) -> Iterator[GameUnit]:
        for number in range(count):
            yield GameUnit("full batch", trained.theta[None], (0,) * len(seeds), seeds, steps, patience=0, noise=number)

    with pool.crew(work) as crew:
        list(crew.map(units(4 * workers, 2)))  # until all have started
        began = time.perf_counter()
        steps = sum(one.steps for _, played in crew.map(units(2 * workers, FULL_STEPS)) for one in played)
        return steps / (time.perf_counter() - began)
