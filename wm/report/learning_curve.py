"""What C came to in how many steps of the game: those of rollouts, and of the runs that it goes on from, included."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wm.agents.card import all_made, env_steps, lineage
from wm.agents.unpack import carried_card
from wm.runs.run import Run
from wm.runs.status import stage_statuses


@dataclass(frozen=True)
class CurvePoint:
    """The distribution's mean on the validation episodes."""

    steps: int
    score: float
    error: float


def curve(run: Run) -> list[CurvePoint]:
    """Of all runs whose C learned in the real game and became this one's, in their order."""
    found: list[CurvePoint] = []
    for one, lent in lineage(run):
        if lent or one.config.evolve.where == "dream":
            continue
        evolve = stage_statuses(one)["evolve"]
        before = env_steps(one) - int(evolve.manifest.metrics.get("env_steps", 0) if evolve.manifest else 0)
        rows = [row for row in evolve.rows(one) if "validation" in row]
        found += [CurvePoint(before + row["env_steps"], row["validation"], row["validation_se"]) for row in rows]
        if evolve.manifest and (card := carried_card(evolve.manifest)):
            found += _told(card)
    return found


def _told(card: dict[str, Any]) -> Iterator[CurvePoint]:
    """What an agent's file tells of the runs that it came of: the best validation of each, after all its steps."""
    steps = 0
    for made in all_made(card):
        metrics = made["metrics"]
        if made["stage"] == "collect":
            steps += metrics["frames"]
        elif made["stage"] == "evolve" and made["config"]["evolve.where"] == "real":
            steps += metrics["env_steps"]
            yield CurvePoint(steps, metrics["best_validation"], metrics.get("best_validation_se", 0.0))
