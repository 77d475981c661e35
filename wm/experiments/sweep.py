"""What temperature does: C evolved at several tau and seeds, each in a run of its own, on one base run's V and M."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from wm.agents.artifacts import parts
from wm.config.schema import Config
from wm.errors import UserError
from wm.pool import Pool, Progress
from wm.runs.lease import hold
from wm.runs.run import Manifest, Run, open_existing, open_run, start_run
from wm.runs.status import stage_statuses
from wm.stages.evolve import evolve
from wm.stages.score import score

FOLDER = "sweep"  # within the base run: its trials' runs, and what they come to


@dataclass(frozen=True)
class Trial:
    """One tau with one seed of the evolution."""

    tau: float
    seed: int

    @property
    def name(self) -> str:
        return f"tau-{self.tau:g}-seed-{self.seed}"

    def uri(self, base: str) -> str:
        return f"{base}/{FOLDER}/{self.name}"

    def config(self, config: Config) -> Config:
        """The base's, but for where and how C is evolved."""
        evolve = replace(config.evolve, where="dream", tau=self.tau, tau_high=0.0, seed=self.seed)
        return replace(config, evolve=evolve).check()


@dataclass(frozen=True)
class TrialResult:
    """A trial that is complete: the same C in the dream that it was evolved in and in the real game."""

    trial: Trial
    uri: str
    generations: int
    validation: float
    dream: tuple[float, float, int]  # mean, standard deviation, episodes
    real: tuple[float, float, int]


def trials_of(taus: Sequence[float], seeds: int) -> list[Trial]:
    """All pairs; the first seed of each tau comes first, so that a whole table stands early."""
    if seeds < 1:
        raise UserError(f"--seeds {seeds} leaves nothing to do: say 1 or more")
    for tau in taus:
        if not tau > 0:
            raise UserError(f"--tau {tau} has to be above 0")
    return [Trial(tau, seed) for seed in range(1, seeds + 1) for tau in dict.fromkeys(taus)]


def check_base(base: Run, config: Config) -> None:
    """A trial makes no V and no M: the Mistake that names the job which does, if they are missing."""
    run = Run(base.storage, Trial(1.0, 1).config(config), base.preset, base.base)
    parts(run.config, run)


def run_trial(
    trial: Trial, base: str, config: Config, pool: Pool, tell: Callable[[Progress], None] = lambda progress: None
) -> TrialResult:
    """Evolve in the dream, score in both. Whatever of it is there already is not done again."""
    origin = open_existing(base)
    run = start_run(trial.uri(origin.uri), origin.preset, trial.config(config), base=origin.uri)
    with hold(run.storage) as lease:

        def watched(progress: Progress) -> None:
            lease.check()
            tell(progress)

        run.tell, run.cpus = watched, pool.workers * max(1, config.threads)
        made, played = evolve(run.config, run, pool), score(run.config, run, pool)
    return _outcome(trial, run, made, played)


def outcome(trial: Trial, base: str, config: Config) -> TrialResult | None:
    """What a trial came to, once it is complete."""
    run = open_run(trial.uri(base))
    if run is None:
        return None
    found = {station.stage: station.manifest for station in stage_statuses(run)}
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
