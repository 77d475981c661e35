"""The effect of temperature: C evolved at several tau and seeds, each in its own run, with a base run's V and M."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from wm.config.schema import Config
from wm.errors import UserError
from wm.pool import Pool, Progress
from wm.runs.lease import hold
from wm.runs.manifest import Manifest
from wm.runs.run import Run, open_existing, open_run, start_run
from wm.runs.status import stage_statuses
from wm.stages.evolve import evolve
from wm.stages.score import score

FOLDER = "sweep"  # in the base run: the trials' runs and the table of results


@dataclass(frozen=True)
class Trial:
    """One temperature with one seed of the evolution."""

    tau: float
    seed: int

    @property
    def name(self) -> str:
        return f"tau-{self.tau:g}-seed-{self.seed}"

    def uri(self, base: str) -> str:
        return f"{base}/{FOLDER}/{self.name}"

    def config(self, config: Config) -> Config:
        """The base's config with C evolved in the dream at this temperature."""
        evolve = replace(config.evolve, where="dream", tau=self.tau, seed=self.seed)
        return replace(config, evolve=evolve).check()


@dataclass(frozen=True)
class TrialResult:
    """A complete trial: the same C in the dream that it was evolved in and in the real game."""

    trial: Trial
    uri: str
    generations: int
    validation: float
    dream: tuple[float, float, int]  # mean, standard deviation, episodes
    real: tuple[float, float, int]


def trials_of(taus: Sequence[float], seeds: int) -> list[Trial]:
    """All pairs, the first seed of each tau first, so that a whole table is available early."""
    if seeds < 1:
        raise UserError(f"--seeds must be 1 or more, got {seeds}")
    for tau in taus:
        if not tau > 0:
            raise UserError(f"--tau must be above 0, got {tau}")
    return [Trial(tau, seed) for seed in range(1, seeds + 1) for tau in dict.fromkeys(taus)]


def check_base(base: Run, config: Config) -> None:
    """Trials use the base's V and M: a UserError that names the job, if they are missing."""
    Run(base.storage, Trial(1.0, 1).config(config), base.preset, base.base).need("memory")


def run_trial(
    trial: Trial, base: str, config: Config, pool: Pool, tell: Callable[[Progress], None] = lambda progress: None
) -> TrialResult:
    """Evolve in the dream, score in both. Existing work is not repeated."""
    origin = open_existing(base)
    run = start_run(trial.uri(origin.uri), origin.preset, trial.config(config), base=origin.uri)
    with hold(run.storage) as lease:

        def watched(progress: Progress) -> None:
            lease.check()
            tell(progress)

        run.tell, run.cpus = watched, pool.workers * max(1, config.threads)
        made, played = evolve(run, pool), score(run, pool)
    return _outcome(trial, run, made, played)


def outcome(trial: Trial, base: str, config: Config) -> TrialResult | None:
    """The result of a trial, once it is complete."""
    run = open_run(trial.uri(base))
    if run is None:
        return None
    found = {name: status.manifest for name, status in stage_statuses(run).items()}
    made, played = found["evolve"], found["score"]
    if not made or made.extent < config.evolve.generations or not played or played.extent < config.score.episodes:
        return None
    return _outcome(trial, run, made, played)


def _outcome(trial: Trial, run: Run, made: Manifest, played: Manifest) -> TrialResult:
    metrics = played.metrics
    return TrialResult(
        trial,
        run.uri,
        made.extent,
        made.metrics["best_validation"],
        (metrics["dream_score"], metrics["dream_std"], metrics["dream_episodes"]),
        (metrics["score"], metrics["std"], metrics["episodes"]),
    )
