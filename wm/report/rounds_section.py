"""The rounds of a run: scores in the game and in dreams, M's prediction error, and the coverage of the rollouts."""

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from wm.experiments.rounds import PREPARING, best_of, rounds_of, row_of
from wm.formatting import format_duration
from wm.report.charts import Series, lines
from wm.report.learning_curve import curve
from wm.report.page import Html, columns, commands, figure, missing, section, table
from wm.report.provenance import changed_flags
from wm.runs.cost import cost_of
from wm.runs.run import Run
from wm.runs.status import stage_statuses

Row = dict[str, Any]
COVERAGE = {  # metrics of a round's rollouts, if the game provides them: (table head, format)
    "track_share": ("track covered", "{:.0%}"),
    "tiles": ("tiles", "{:,}"),
    "speed": ("speed", "{:.0f}"),
    "speed_entropy": ("speed entropy, bits", "{:.2f}"),
    "cells": ("z cells", "{:,}"),
    "cells_entropy": ("z entropy, bits", "{:.2f}"),
}


class Rounds:
    """The rounds of a run so far; empty if the run has none."""

    def __init__(self, run: Run):
        self.run, self.parts = run, rounds_of(run)
        self.complete = [part for part in self.parts if row_of(part)]
        self.rows = [row_of(part) for part in self.complete]

    @property
    def best(self) -> Run:
        return self.complete[best_of(self.rows)] if self.rows else self.parts[0]

    @property
    def state(self) -> str:
        done = f"{len(self.rows)} of {self.run.config.rounds.count} rounds complete"
        if not self.rows:
            return f"{done}; the rest of the page shows the first"
        return f"{done}; the rest of the page shows round {best_of(self.rows)}, the best so far"


def rounds_section(rounds: Rounds) -> Html:
    rows, run = rounds.rows, rounds.run
    words = ["python", "-m", "jobs.iterate", run.preset, "--run", run.uri, *changed_flags(run.preset, run.config)]
    return section(
        "Round by round",
        "In each round the previous round's agent collects rollouts with exploration noise, V and M are trained on all"
        " rollouts so far, and the evolution of C continues with them.",
        columns(_scores(rows), _prediction_error(rows), _coverage(rows), _steps(rounds)) if rows else None,
        _table(rounds) if rows else None,
        _unfinished(rounds),
        commands([shlex.join(words)]),
    )


def _scores(rows: Sequence[Row]) -> Html:
    series = [
        _series(rows, "real game", "one", lambda row: (row["validation"], row["validation_se"])),
        _series(rows, "dream", "two", lambda row: _pair(row.get("dream"))),
        _series(rows, "collecting agent", "other", lambda row: (row["driven"], 0.0)),
    ]
    note = (
        "Validation in the real game and score in dreams, with standard errors; higher is better. A dream score far"
        " above the validation means that C exploits errors of M. The collecting agent acts with exploration noise."
    )
    return figure("Score.", note, lines(series, "round", "score"))


def _prediction_error(rows: Sequence[Row]) -> Html:
    """NLL of each round's M on rollouts of the first and of its own round, and of the first M on the latter."""

    def of(name: Callable[[Row], str]) -> Callable[[Row], tuple[float, float] | None]:
        return lambda row: _pair(row["nll"].get(name(row)))

    series = [
        _series(rows, "rollouts of the first round", "three", of(lambda row: "round-000")),
        _series(rows, "rollouts of this round", "one", of(lambda row: f"round-{row['round']:03}")),
        _series(rows, "rollouts of this round, first M", "other", lambda row: _pair(row.get("nll_before"))),
    ]
    note = (
        "M's negative log-likelihood per dimension on held-out episodes, with z scaled to unit variance; lower is"
        " better. If the curve of the first round's rollouts rises, M forgets them."
    )
    return figure("What M foresees.", note, lines(series, "round", "NLL"))


def _pair(mean: dict[str, float] | None) -> tuple[float, float] | None:
    return (mean["mean"], mean["se"]) if mean else None


def _coverage(rows: Sequence[Row]) -> Html:
    def of(name: str) -> Callable[[Row], tuple[float, float] | None]:
        return lambda row: (row["coverage"][name], 0.0) if name in row.get("coverage", {}) else None

    series = [
        _series(rows, "z", "one", of("cells_entropy")),
        _series(rows, "speed", "two", of("speed_entropy")),
    ]
    note = (
        "Entropy of the rollouts over cells of z and over speeds; higher means more varied rollouts, and one bit more"
        " stands for twice as many equally frequent cells. All rounds are encoded by the first round's V."
    )
    return figure("What was visited.", note, lines(series, "round", "bits"))


def _steps(rounds: Rounds) -> Html:
    """All validations on the way to the best C, with the borders of rounds."""
    points = curve(rounds.best)
    series = Series(
        "validation",
        [(point.steps, point.score) for point in points],
        errors=[point.error for point in points],
        dots=True,
    )
    borders = [(row["env_steps"], str(row["round"])) for row in rounds.rows]
    note = (
        "Validations with standard errors over all steps of the real game so far, in rollouts and evolution; further up"
        " and to the left is better. The dashed lines are the ends of rounds."
    )
    return figure("Score against steps.", note, lines([series], "steps", "score", borders=borders))


def _series(rows: Sequence[Row], name: str, colour: Any, of: Callable[[Row], tuple[float, float] | None]) -> Series:
    values = [(index, *pair) for index, row in enumerate(rows) if (pair := of(row))]
    points = [(index, value) for index, value, _ in values]
    return Series(name, points, colour, errors=[error for *_, error in values], dots=True)


def _table(rounds: Rounds) -> Html:
    rows = rounds.rows
    names = [name for name in COVERAGE if any(name in row.get("coverage", {}) for row in rows)]
    heads = ["round", "steps", "of its own", "time", "validation", "dream", "gap"]
    heads += ["NLL, this round", "same, first M", "NLL, first round", *(COVERAGE[name][0] for name in names)]
    before = [0, *(row["env_steps"] for row in rows)]
    cells = [_cells(*each, names) for each in zip(rows, before, map(_seconds, rounds.complete), strict=False)]
    return table(heads, cells, range(1, len(heads)), strong=best_of(rows))


def _seconds(part: Run) -> float:
    """The time of the stages that this part made itself."""
    made = [status.manifest for status in stage_statuses(part).values()]
    return sum(cost_of(manifest).seconds for manifest in made if manifest and manifest.storage.uri == part.uri)


def _cells(row: Row, before: int, seconds: float, names: Sequence[str]) -> list[str]:
    dream, coverage = row.get("dream"), row.get("coverage", {})
    nll = [row["nll"].get(f"round-{row['round']:03}"), row.get("nll_before"), row["nll"].get("round-000")]
    return [
        str(row["round"]),
        f"{row['env_steps']:,}",
        f"{row['env_steps'] - before:,}",
        format_duration(seconds),
        f"{row['validation']:,.0f} ± {row['validation_se']:,.0f}",
        f"{dream['mean']:,.0f} ± {dream['se']:,.0f}" if dream else "-",
        f"{dream['mean'] - row['validation']:+,.0f}" if dream else "-",
        *(f"{one['mean']:.3f}" if one else "-" for one in nll),
        *(COVERAGE[name][1].format(coverage[name]) if name in coverage else "-" for name in names),
    ]


def _unfinished(rounds: Rounds) -> Html | None:
    """The progress of the first round that is not complete."""
    part = next((part for part in rounds.parts if part not in rounds.complete), None)
    if part is None:
        return None
    statuses = stage_statuses(part)
    done = sum(statuses[name].complete for name in PREPARING)
    name = part.uri.rpartition("/")[2]
    command = f"python -m jobs.iterate --run {shlex.quote(rounds.run.uri)}"
    return missing(f"of {name} {done} of {len(PREPARING)} stages are complete: continue with `{command}`")
