"""Validation scores over steps of the game, including the steps of rollouts and of earlier runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wm.agents.card import all_made, env_steps, lineage
from wm.agents.unpack import carried_card
from wm.evolution.validations import validated
from wm.runs.run import Run
from wm.runs.status import stage_statuses


@dataclass(frozen=True)
class CurvePoint:
    """The validation of the search distribution's mean."""

    steps: int
    score: float
    error: float


def curve(run: Run) -> list[CurvePoint]:
    """The points of this run and of earlier runs whose C was its starting point, if they evolved in the real game."""
    points: list[CurvePoint] = []
    for one, lent in lineage(run):
        if lent or one.config.evolve.where == "dream":
            continue
        evolve = stage_statuses(one)["evolve"]
        before = env_steps(one) - int(evolve.manifest.metrics.get("env_steps", 0) if evolve.manifest else 0)
        rows = validated(evolve.rows(one))
        points += [CurvePoint(before + row["env_steps"], row["validation"], row["validation_se"]) for row in rows]
        if evolve.manifest and (card := carried_card(evolve.manifest)):
            points += _points_of_card(card)
    return points


def _points_of_card(card: dict[str, Any]) -> Iterator[CurvePoint]:
    """One point for each evolution in an agent file: the best validation, placed at the end of the evolution."""
    steps = 0
    for made in all_made(card):
        metrics = made["metrics"]
        if made["stage"] == "collect":
            steps += metrics["frames"]
        elif made["stage"] == "evolve" and made["config"]["evolve.where"] == "real":
            steps += metrics["env_steps"]
            yield CurvePoint(steps, metrics["best_validation"], metrics.get("best_validation_se", 0.0))
