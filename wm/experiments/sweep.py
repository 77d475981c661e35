"""The effect of temperature: C evolved at several tau and seeds, each in its own run, with a base run's V and M.

A sweep is a grid of trials (wm/experiments/trials.py) that are all scored, in the dream and in the real game.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wm.config.schema import Config
from wm.errors import UserError
from wm.experiments.trials import Place, Trial, TrialResult, Validation, result_of
from wm.runs.run import Run

FOLDER = "sweep"  # in the base run: the trials' runs and the table of results
MOST_SEEDS = 1_000


@dataclass(frozen=True)
class TauResult:
    """A complete trial: the same C in the dream that it was evolved in and in the real game."""

    tau: float
    seed: int
    uri: str
    generations: int
    validation: float
    dream: tuple[float, float, int]  # mean, standard deviation, episodes
    real: tuple[float, float, int]


class Sweep:
    """Runs the trials in order; see wm.experiments.trials.Schedule."""

    def __init__(self, base: Run, config: Config, taus: Sequence[float], seeds: int):
        self.place = Place(config, base.uri, f"{base.uri}/{FOLDER}", shared="", scored=True)
        self.trials = trials_of(taus, seeds)
        # Trials use the base's V and M: a UserError that names the job, if they are missing.
        Run(base.storage, self.trials[0].config(config), base.preset, base.base).need("memory")
        self.missing = [trial for trial in self.trials if result_of(trial, self.place) is None]
        self.open = iter(self.missing)
        self.failures: list[str] = []

    def next(self) -> Trial | None:
        return next(self.open, None)

    def validated(self, trial: Trial, found: Sequence[Validation]) -> bool:
        return False

    def completed(self, trial: Trial, result: TrialResult) -> None:
        """Nothing to note: results are read from the runs."""

    def failed(self, trial: Trial, reason: str) -> None:
        self.failures.append(f"{trial.name}: {reason}")

    def results(self) -> list[TauResult]:
        """Those of complete trials."""
        return [of_tau(one) for trial in self.trials if (one := result_of(trial, self.place))]


def trials_of(taus: Sequence[float], seeds: int) -> list[Trial]:
    """All pairs, the first seed of each tau first, so that a whole table is available early."""
    if not 1 <= seeds <= MOST_SEEDS:
        raise UserError(f"--seeds must be in [1, {MOST_SEEDS}], got {seeds}")
    for tau in taus:
        if not 0 < tau < math.inf:
            raise UserError(f"--tau must be a finite number above 0, got {tau}")
    each = list(dict.fromkeys(taus))
    return [
        Trial(
            f"tau-{tau:g}-seed-{seed}",
            number,
            seed,
            values={"evolve.tau": tau},
            fixed={"evolve.where": "dream", "evolve.seed": seed},
        )
        for seed in range(1, seeds + 1)
        for number, tau in enumerate(each)
    ]


def of_tau(result: TrialResult) -> TauResult:
    metrics = result.metrics
    return TauResult(
        result.trial.values["evolve.tau"],
        result.trial.seed,
        result.uri,
        result.generations,
        result.validation.score,
        (metrics["dream_score"], metrics["dream_std"], metrics["dream_episodes"]),
        (metrics["score"], metrics["std"], metrics["episodes"]),
    )
