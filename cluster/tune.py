"""Runs the trials of a search in parallel with Ray Tune. Tune only schedules them; results are stored in the runs."""

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from cluster import runtime
from cluster.pool import RayPool
from wm.config.schema import Config
from wm.errors import Failure, UserError
from wm.experiments.trials import Place, Schedule, Trial, Validation, new_validations, result_of, run_trial
from wm.pool import LocalPool, Pool, Progress, set_threads

log = logging.getLogger(__name__)

DEATHS = 8  # consecutive deaths of a trial's process, without progress, before the trial fails
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # run paths may be relative
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C interrupts the job as usual
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # curves are in the runs


def bundles(cpus: int, gpus: float) -> list[dict[str, float]]:
    """The resources of a trial.

    With one CPU it does its work in its own process, which then also has the GPU; with more, its process only drives
    the workers, each with a CPU or the GPU.
    """
    own = {"GPU": gpus} if gpus else {}
    if cpus == 1:
        return [{"CPU": 1.0, **own}]
    return [{}, *({"CPU": 1.0} for _ in range(cpus)), *([own] if gpus else [])]


def run_trials(
    schedule: Schedule,
    place: Place,
    cpus: int,
    gpus: float,
    tell: Callable[[Progress], None],
    run: Callable[[Trial, Place, Pool, Callable[[Progress], None]], Any] = run_trial,
) -> None:
    """Run all trials with `cpus` CPUs and `gpus` GPUs each, as many at a time as fit into the cluster.

    Tune's own state, which is pickled, is discarded: the runs hold all progress.
    """
    course = _Course(schedule, place, tell)
    with tempfile.TemporaryDirectory(prefix="tune-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(_trainable(place, cpus, run), tune.PlacementGroupFactory(bundles(cpus, gpus))),
            tune_config=tune.TuneConfig(num_samples=-1, search_alg=_Proposals(course, cpus, gpus), scheduler=course),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=DEATHS),
            ),
        )
        with contextlib.redirect_stdout(io.StringIO()):  # Tune prints to stdout, which is reserved for the summary
            results = tuner.fit()
    if course.mistake:
        raise UserError(course.mistake)
    if results.errors:
        raise Failure(f"{len(results.errors)} trials failed; the first: {results.errors[0]}")


def _trainable(place: Place, cpus: int, run: Callable[..., Any]) -> Callable[[dict[str, Any]], None]:
    def trainable(parameters: dict[str, Any]) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        trial: Trial = parameters["trial"]
        set_threads(place.config.threads)
        pool: Pool = LocalPool(place.config.workers.retries) if cpus == 1 else _pool(place.config, cpus)

        def report(progress: Progress) -> None:
            found = [vars(one) for one in new_validations(progress, trial, place)]
            numbers = {"stage": progress.stage, "reached": progress.done, "total": progress.total}
            tune.report({**progress.metrics, **numbers, "unit": progress.unit, "validations": found})

        # Reported as results, since Tune would retry an error.
        try:
            run(trial, place, pool, report)
        except UserError as mistake:
            tune.report({"mistake": str(mistake)})
        except Failure as failure:
            tune.report({"failure": str(failure)})
        finally:
            pool.close()

    return trainable


def _pool(config: Config, cpus: int) -> RayPool:
    workers = config.workers
    return RayPool(cpus, workers.retries, workers.unit_seconds, recycle_units=workers.recycle_units)


class _Proposals(Searcher):
    """Gives Tune the schedule's next trial whenever there is room for one."""

    def __init__(self, course: "_Course", cpus: int, gpus: float):
        super().__init__()
        self.course, self.cpus, self.gpus = course, cpus, gpus
        self.running: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        if self.course.mistake:
            return Searcher.FINISHED
        if len(self.running) >= self._room():
            return None  # proposed later, the trial is chosen with more results known
        trial = self.course.schedule.next()
        if trial is None:
            return Searcher.FINISHED
        self.running.add(trial_id)
        return {"trial": trial}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        self.running.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the schedule's state is in the runs."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError

    def _room(self) -> int:
        """The number of trials that fit into the cluster, with nodes that the autoscaler may add."""
        alive = runtime.nodes()
        fits = max(sum(node.cpus for node in alive), runtime.planned_cpus()) // self.cpus
        if self.gpus:
            fits = min(fits, int(max(sum(node.gpus for node in alive), runtime.planned_gpus()) / self.gpus))
        return max(1, fits)


class _Course(FIFOScheduler):
    """Passes what trials report to the schedule and the display, and stops trials that the schedule ends."""

    def __init__(self, schedule: Schedule, place: Place, tell: Callable[[Progress], None]):
        super().__init__()
        self.schedule, self.place, self.tell, self.mistake = schedule, place, tell, ""
        self.reached: dict[str, tuple[str, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its scheduler but never restores it here

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        one: Trial = trial.config["trial"]
        if "mistake" in result:
            self.mistake = self.mistake or result["mistake"]
        elif "failure" in result:
            log.warning("%s failed: %s", one.name, result["failure"])
            self.schedule.failed(one, result["failure"])
        if self.mistake or "failure" in result:
            return FIFOScheduler.STOP
        now = (result["stage"], result["reached"])
        if now != self.reached.get(one.name):  # a lost process or node is no failure as long as there is progress
            self.reached[one.name] = now
            trial.run_metadata.num_failures = 0
        shown = {str(key): float(result[key]) for key in ("score", "mean") if key in result}
        self.tell(Progress(f"{one.name} {now[0]}", now[1], result["total"], result["unit"], shown))
        found = [Validation(**row) for row in result["validations"]]
        return FIFOScheduler.STOP if found and self.schedule.validated(one, found) else FIFOScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if self.mistake:  # a trial with a wrong field has no result to look for
            return
        one: Trial = trial.config["trial"]
        made = result_of(one, self.place)
        if made is not None:
            self.schedule.completed(one, made)
