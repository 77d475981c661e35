"""Runs the trials of a sweep in parallel with Ray Tune. Tune only schedules them; results are stored in the runs."""

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune

from cluster.pool import RayPool
from wm.config.schema import Config
from wm.errors import Failure, UserError
from wm.experiments.sweep import Trial, run_trial
from wm.pool import LocalPool, Pool, Progress, set_threads

log = logging.getLogger(__name__)

RETRIES = 3  # per trial; a trial resumes from its last generation
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # run paths may be relative
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C interrupts the job as usual


def bundles(cpus: int, gpu: bool) -> list[dict[str, float]]:
    """The resources of a trial.

    With one CPU it does its work in its own process, which then also has the GPU; with more, its process only drives
    the workers, each with a CPU or the GPU.
    """
    own = {"GPU": 1.0} if gpu else {}
    if cpus == 1:
        return [{"CPU": 1.0, **own}]
    return [{}, *({"CPU": 1.0} for _ in range(cpus)), *([own] if gpu else [])]


def run_trials(
    trials: Sequence[Trial],
    base: str,
    config: Config,
    cpus: int,
    tell: Callable[[Progress], None],
    run: Callable[..., Any] = run_trial,
) -> None:
    """Run the trials with `cpus` CPUs each, and a GPU for dreams on cuda, as many at a time as fit into the cluster.

    Tune's own state, which is pickled, is discarded: the runs hold all progress.
    """

    def trainable(parameters: dict[str, Any]) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        trial = Trial(**parameters["trial"])
        set_threads(config.threads)
        pool: Pool = LocalPool(config.workers.retries) if cpus == 1 else _pool(config, cpus)

        def report(progress: Progress) -> None:
            tune.report(
                {**progress.metrics, "stage": progress.stage, "reached": progress.done, "total": progress.total}
            )

        try:
            run(trial, base, config, pool, report)
        except UserError as mistake:
            tune.report({"mistake": str(mistake)})  # reported as a result, since Tune would retry an error
        finally:
            pool.close()

    resources = tune.PlacementGroupFactory(bundles(cpus, config.evolve.device == "cuda"))
    watch = _Watch(tell)
    with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            param_space={"trial": tune.grid_search([{"tau": one.tau, "seed": one.seed} for one in trials])},
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[watch],
            ),
        )
        with contextlib.redirect_stdout(io.StringIO()):  # Tune prints to stdout, which is reserved for the summary
            results = tuner.fit()
    if watch.mistake:
        raise UserError(watch.mistake)
    if results.errors:
        raise Failure(f"{len(results.errors)} of {len(trials)} trials failed; the first: {results.errors[0]}")


def _pool(config: Config, cpus: int) -> RayPool:
    workers = config.workers
    return RayPool(cpus, workers.retries, workers.unit_seconds, recycle_units=workers.recycle_units, gpu_workers=1)


class _Watch(tune.Callback):
    """Forwards the progress of each trial to the display."""

    def __init__(self, tell: Callable[[Progress], None]):
        self.tell, self.mistake = tell, ""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks but never restores them here

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        if "mistake" in result:
            self.mistake = self.mistake or result["mistake"]
            return
        name = f"{Trial(**trial.config['trial']).name} {result['stage']}"
        shown = {str(key): float(result[key]) for key in ("score", "mean") if key in result}
        unit = "generations" if result["stage"] == "evolve" else "episodes"
        self.tell(Progress(name, result["reached"], result["total"], unit, shown))
