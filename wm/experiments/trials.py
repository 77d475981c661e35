"""A trial of a search: an ordinary run with some fields changed, which shares every stage that they do not touch.

base/                    the config that all trials start from, with the stages that no searched field touches
shared/memory-3f0c91a2/  stages that several trials share: those with the same values of the fields up to there
trials/0003/             a trial; with several seeds trials/0003-seed-1
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

from wm.config.fields import with_overrides
from wm.config.schema import Config
from wm.errors import Failure
from wm.evolution.validations import validated
from wm.pipeline import stage_function
from wm.pool import Pool, Progress
from wm.runs.lease import InUse, Lease, hold
from wm.runs.manifest import Manifest
from wm.runs.run import Run, open_existing, open_run, start_run
from wm.runs.stages import STAGES
from wm.runs.status import stage_statuses
from wm.runs.storage import open_storage, sha256, to_json

WAIT_SECONDS = 2.0  # between looks at a shared run that another trial is making
Tell = Callable[[Progress], None]


@dataclass(frozen=True)
class Trial:
    """A configuration with one seed of the evolution. Light and picklable: it travels to the trial's process."""

    name: str  # of its run
    number: int  # of the configuration
    seed: int  # from 0
    values: Mapping[str, Any]  # field -> value, without the seed
    fixed: Mapping[str, Any]  # the seed of the evolution, and fields that all trials of a sweep change

    def config(self, base: Config) -> Config:
        return with_overrides(base, dict(self.values) | dict(self.fixed)).check()


@dataclass(frozen=True)
class Place:
    """Where the runs of a search are and what they start from. Light and picklable."""

    config: Config  # that trials change
    base: str  # URI of the base run
    trials: str  # URI of the folder of the trials' runs
    shared: str  # URI of the folder of the runs that several trials share; "" if trials derive from the base alone
    scored: bool = False  # whether every trial is scored in the unmodified game

    def uri(self, trial: Trial) -> str:
        return f"{self.trials}/{trial.name}"


@dataclass(frozen=True)
class Validation:
    generation: int
    score: float
    error: float  # standard error; 0 if nothing is known about it


@dataclass(frozen=True)
class TrialResult:
    """A complete trial."""

    trial: Trial
    uri: str
    generations: int
    validation: Validation  # the best one, whose C is the result
    env_steps: int  # of the game in the evolution
    metrics: Mapping[str, Any]  # of its score; empty if it was not scored


def level_of(field: str) -> str:
    """The first stage that a field touches."""
    section = field.partition(".")[0]
    return next(name for name, stage in STAGES.items() if section == name or section in stage.sections)


def levels_of(fields: Mapping[str, Any]) -> list[str]:
    """The stages at which trials part, in order. The evolution is always one: trials differ at least in its seed."""
    found = {level_of(field) for field in fields} | {"evolve"}
    return [name for name in STAGES if name in found]


def stages_before(level: str, uses_memory: bool) -> list[str]:
    """The stages that a run needs before this one."""
    names = list(STAGES)
    return [name for name in names[: names.index(level)] if uses_memory or name != "memory"]


def make_base(run: Run, stages: Sequence[str], pool: Pool) -> list[Manifest]:
    """The stages that no searched field touches."""
    return [stage_function(name)(run, pool) for name in stages]


class Schedule(Protocol):
    """Decides which trial is next and notes what came of each."""

    def next(self) -> Trial | None:
        """A trial to run now; None if there is none left."""

    def validated(self, trial: Trial, found: Sequence[Validation]) -> bool:
        """Note a trial's validations so far, and return whether it is stopped."""

    def completed(self, trial: Trial, result: TrialResult) -> None: ...

    def failed(self, trial: Trial, reason: str) -> None: ...


class _Stopped(Exception):
    """The schedule has stopped this trial."""


def run_here(schedule: Schedule, place: Place, pool: Pool, tell: Tell) -> None:
    """All trials in this process, one after the other."""
    while (trial := schedule.next()) is not None:

        def watch(progress: Progress, trial: Trial = trial) -> None:
            tell(replace(progress, stage=f"{trial.name} {progress.stage}"))
            found = new_validations(progress, trial, place)
            if found and schedule.validated(trial, found):
                raise _Stopped

        try:
            schedule.completed(trial, run_trial(trial, place, pool, watch))
        except _Stopped:
            pass
        except Failure as failure:
            schedule.failed(trial, str(failure))


def new_validations(progress: Progress, trial: Trial, place: Place) -> list[Validation]:
    """All validations of a trial, if its progress includes a new one; they come with the generation after."""
    every = place.config.evolve.validate_every
    if progress.stage != "evolve" or (progress.done % every != 1 % every and progress.done < progress.total):
        return []
    return validations_of(place.uri(trial))


def run_trial(trial: Trial, place: Place, pool: Pool, tell: Tell = lambda progress: None) -> TrialResult:
    """Make what is missing of the trial and of what it shares with others."""
    base = open_existing(place.base)
    config = trial.config(place.config)
    if place.shared:
        base = _shared(trial, place, base, pool, tell)
    run = start_run(place.uri(trial), base.preset, config, base=base.uri)
    # Whoever runs the search holds its lease, so another holder of this run is a leftover of an interrupted job.
    with hold(run.storage, take_over=True) as lease:

        def watched(progress: Progress) -> None:
            lease.check()
            tell(progress)

        run.tell, run.cpus = watched, pool.workers * max(1, config.threads)
        for name in stages_before("evolve", config.uses_memory) if place.shared else ():
            stage_function(name)(run, pool)
        for name in ("evolve", "score") if place.scored else ("evolve",):
            stage_function(name)(run, pool)
    found = result_of(trial, place)
    assert found is not None, f"{run.uri} is not complete"
    return found


def result_of(trial: Trial, place: Place) -> TrialResult | None:
    """The result of a trial, once it is complete."""
    run, config = open_run(place.uri(trial)), trial.config(place.config)
    if run is None:
        return None
    found = {name: status.manifest for name, status in stage_statuses(run).items()}
    made, played = found["evolve"], found["score"]
    if not made or made.extent < config.evolve.generations:
        return None
    if place.scored and (not played or played.extent < config.score.episodes):
        return None
    metrics = made.metrics
    best = Validation(metrics["best_generation"], metrics["best_validation"], metrics["best_validation_se"])
    return TrialResult(trial, run.uri, made.extent, best, metrics["env_steps"], played.metrics if played else {})


def validations_of(uri: str) -> list[Validation]:
    """The validations of a trial so far."""
    run = open_run(uri)
    if run is None:
        return []
    status = stage_statuses(run)["evolve"]
    return [
        Validation(int(row["generation"]), row["validation"], row["validation_se"])
        for row in validated(status.rows(run))
    ]


def _shared(trial: Trial, place: Place, base: Run, pool: Pool, tell: Tell) -> Run:
    """The run from which the trial derives, with all stages before those that only the trial's own fields touch."""
    levels, values = levels_of(trial.values), dict(trial.values)
    for level, following in pairwise(levels):
        upto = list(STAGES)[: list(STAGES).index(level) + 1]
        known = {field: value for field, value in values.items() if level_of(field) in upto}
        name = f"{level}-{sha256(to_json(known))[:8]}"
        config = with_overrides(place.config, known).check()
        run = start_run(f"{place.shared}/{name}", base.preset, config, base=base.uri)
        needed = stages_before(following, trial.config(config).uses_memory)
        missing = [stage for stage in needed if not stage_statuses(run)[stage].complete]
        if missing:
            with _hold_when_free(run.uri):
                run.tell, run.cpus = tell, pool.workers * max(1, config.threads)
                for stage in missing:
                    stage_function(stage)(run, pool)
        base = run
    return base


@contextmanager
def _hold_when_free(uri: str) -> Iterator[None]:
    """Hold a shared run, waiting while another trial makes it."""
    lease = Lease(open_storage(uri))
    while True:
        try:
            lease.acquire()
            break
        except InUse:
            time.sleep(WAIT_SECONDS)
    try:
        yield
    finally:
        lease.release()
