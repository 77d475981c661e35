"""Trials on Ray Tune and in this process: a schedule can stop one, and a failure or a lost process is not the end."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.tune import run_trials
from wm.config.fields import with_overrides
from wm.experiments.trials import Place, Trial, TrialResult, Validation, run_here
from wm.pool import LocalPool, Progress
from wm.runs.run import Run


class Plan:
    """Three trials, of which the second is stopped after its first validation."""

    def __init__(self, place: Place):
        values: list[dict[str, Any]] = [{"evolve.sigma0": sigma} for sigma in (0.1, 0.2, 0.3)]
        self.trials = [Trial(f"{number:04d}", number, 0, one, {}) for number, one in enumerate(values)]
        self.place, self.open = place, list(self.trials)
        self.seen: dict[str, list[Validation]] = {}
        self.done: dict[str, TrialResult] = {}
        self.reasons: dict[str, str] = {}

    def next(self) -> Trial | None:
        return self.open.pop(0) if self.open else None

    def validated(self, trial: Trial, found: Sequence[Validation]) -> bool:
        self.seen[trial.name] = list(found)
        return trial.number == 1

    def completed(self, trial: Trial, result: TrialResult) -> None:
        self.done[trial.name] = result

    def failed(self, trial: Trial, reason: str) -> None:
        self.reasons[trial.name] = reason


@pytest.fixture
def place(cartpole: Run, tmp_path: Path) -> Place:
    changes = {"evolve.where": "real", "evolve.generations": 3, "evolve.validate_every": 1}
    config = with_overrides(cartpole.config, changes)
    return Place(config, cartpole.uri, f"{tmp_path}/trials", f"{tmp_path}/shared")


def check(plan: Plan) -> None:
    assert list(plan.done) == ["0000", "0002"]
    assert len(plan.seen["0001"]) == 1  # it was stopped before its next generation was reported
    assert [one.generation for one in plan.seen["0000"]] == [1, 2, 3]
    stopped = Path(plan.place.trials, "0001")
    assert list(stopped.glob("evolve/*/checkpoints/step-*"))
    assert not list(stopped.glob("evolve/*/manifest-*"))


def test_a_stopped_trial_in_this_process(place: Place) -> None:
    plan = Plan(place)
    run_here(plan, place, LocalPool(), lambda progress: None)
    check(plan)


def test_a_stopped_trial_and_a_lost_process_on_tune(place: Place, cluster: Any) -> None:
    """The process of the first trial is killed in its first generation; the trial goes on in another one."""
    plan, told, killed = Plan(place), list[Progress](), list[int]()

    def tell(progress: Progress) -> None:
        told.append(progress)
        if progress.stage == "0000 evolve" and progress.done == 1 and not killed:
            killed.append(_process_of(place, plan.trials[0]))
            os.kill(killed[0], signal.SIGKILL)

    run_trials(plan, place, 1, 0, tell)
    check(plan)
    assert killed
    assert not plan.reasons
    here = Plan(Place(place.config, place.base, place.trials + "-here", place.shared))
    run_here(here, here.place, LocalPool(), lambda progress: None)
    for name in ("0000", "0002"):
        assert plan.done[name].validation == here.done[name].validation


def test_a_failed_trial_does_not_end_the_others(place: Place, cluster: Any) -> None:
    config = with_overrides(place.config, {"memory.steps": 6})
    diverging = Place(config, place.base, place.trials, place.shared)
    plan = Plan(diverging)
    plan.trials = [
        Trial("0000", 0, 0, {"memory.learning_rate": 1e9}, {}),
        Trial("0001", 2, 0, {"memory.learning_rate": 0.001}, {}),
    ]
    plan.open = list(plan.trials)
    run_trials(plan, diverging, 1, 0, lambda progress: None)
    assert list(plan.reasons) == ["0000"]
    assert "diverge" in plan.reasons["0000"] or "finite" in plan.reasons["0000"]
    assert list(plan.done) == ["0001"]


def _process_of(place: Place, trial: Trial) -> int:
    """The process that holds the trial's run."""
    [lease] = Path(place.uri(trial)).glob("lease/*.json")
    return int(json.loads(lease.read_text())["pid"])
