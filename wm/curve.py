"""What C came to in how many steps of the game: those of rollouts, and of the runs that it goes on from, included."""

from dataclasses import dataclass

from wm.card import env_steps, lineage
from wm.run import Run
from wm.survey import survey


@dataclass(frozen=True)
class Validated:
    """The distribution's mean on the validation episodes."""

    steps: int
    score: float
    error: float


def curve(run: Run) -> list[Validated]:
    """Of all runs whose C learned in the real game and became this one's, in their order."""
    found: list[Validated] = []
    for one, lent in lineage(run):
        if lent or one.config.evolve.where == "dream":
            continue
        evolve = next(station for station in survey(one) if station.stage == "evolve")
        total, metrics = env_steps(one), evolve.manifest.metrics if evolve.manifest else {}
        rows = [row for row in evolve.rows(one) if "validation" in row]
        before = total - int(metrics.get("env_steps", 0))
        found += [Validated(before + row["env_steps"], row["validation"], row["validation_se"]) for row in rows]
        if not rows and "best_validation" in metrics:  # an agent's file tells no more
            found.append(Validated(total, metrics["best_validation"], metrics.get("best_validation_se", 0.0)))
    return found
