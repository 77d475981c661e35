"""Rounds of the agent's own data, side by side: how it drives, what it dreams of, what M foresees, what was visited."""

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from wm.experiments.rounds import PREPARING, best_of, polished_of, rounds_of, row_of
from wm.report.charts import Series, lines
from wm.report.page import Html, columns, commands, figure, joined, missing, section, table
from wm.report.provenance import changed
from wm.runs.run import Run
from wm.runs.status import stage_statuses

Row = dict[str, Any]
COVERED = {  # what is known of a round's rollouts, where the game tells it
    "track_share": ("of a track", "{:.0%}"),
    "tiles": ("tiles", "{:,}"),
    "speed": ("speed", "{:.0f}"),
    "speed_entropy": ("speeds, bits", "{:.2f}"),
    "cells": ("cells of z", "{:,}"),
    "cells_entropy": ("cells, bits", "{:.2f}"),
}
POLISHED = " The last point is a round's C, polished: with V and M as they are it goes on along what it steers by."


class Rounds:
    """The rounds of a run so far; none where it was made in one go."""

    def __init__(self, run: Run):
        rounds = rounds_of(run)
        self.run, self.parts = run, [*rounds, *polished_of(rounds)]
        self.complete = [part for part in self.parts if row_of(part)]
        self.rows = [row_of(part) for part in self.complete]

    @property
    def best(self) -> Run:
        return self.complete[best_of(self.rows)] if self.rows else self.parts[0]

    @property
    def state(self) -> str:
        done = f"{sum(not row.get('polished') for row in self.rows)} of {self.run.config.rounds.count} rounds complete"
        if not self.rows:
            return f"{done}; all but their comparison is of the first"
        return f"{done}; all but their comparison is of round {_name(self.rows[best_of(self.rows)])}, the best so far"


def _name(row: Row) -> str:
    return f"{row['round']}{', polished' if row.get('polished') else ''}"


def shown(rounds: Rounds) -> Html:
    """The section of a report."""
    rows, run = rounds.rows, rounds.run
    plain = [row for row in rows if not row.get("polished")]
    words = ["python", "-m", "jobs.iterate", run.preset, "--run", run.uri, *changed(run.preset, run.config)]
    return section(
        "Round by round",
        "In each round the agent of the one before drives, with some noise; V and M learn from all rollouts so far, and"
        " C goes on in what has come of them." + (POLISHED if len(plain) < len(rows) else ""),
        columns(_scores(rows), _foreseen(plain), _covered(plain), _spent(rows)) if rows else None,
        _table(rows) if rows else None,
        _under_way(rounds),
        commands([shlex.join(words)]),
    )


def _scores(rows: Sequence[Row]) -> Html:
    series = [
        _series(rows, "real game", "one", lambda row: (row["validation"], row["validation_se"])),
        _series(
            rows, "its own dream", "two", lambda row: row.get("dream") and (row["dream"]["mean"], row["dream"]["se"])
        ),
        _series(rows, "who collected", "other", lambda row: None if row.get("polished") else (row["driven"], 0.0)),
    ]
    note = (
        "validation, with its standard error; the dream's distance from it is what M flatters; who collected had noise"
    )
    return figure("Score.", note, lines(series, "round", "score"))


def _foreseen(rows: Sequence[Row]) -> Html:
    """Driving of the first round and of the newest, as each round's M foresees it; and as the first round's does."""

    def of(name: Callable[[Row], str]) -> Callable[[Row], tuple[float, float] | None]:
        def found(row: Row) -> tuple[float, float] | None:
            return _pair(row["nll"].get(name(row)))

        return found

    series = [
        _series(rows, "the first round's driving", "three", of(lambda row: "round-000")),
        _series(rows, "the round's own", "one", of(lambda row: f"round-{row['round']:03}")),
        _series(rows, "the same, to the first M", "other", lambda row: _pair(row.get("nll_before"))),
    ]
    note = "NLL a dimension of held-out episodes, z scaled to unit variance; where the first curve rises, M forgets"
    return figure("What M foresees.", note, lines(series, "round", "NLL"))


def _pair(found: dict[str, float] | None) -> tuple[float, float] | None:
    return (found["mean"], found["se"]) if found else None


def _covered(rows: Sequence[Row]) -> Html:
    def of(name: str) -> Callable[[Row], tuple[float, float] | None]:
        return lambda row: (row["coverage"][name], 0.0) if name in row.get("coverage", {}) else None

    series = [
        _series(rows, "cells of z", "one", of("cells_entropy")),
        _series(rows, "speeds", "two", of("speed_entropy")),
    ]
    note = (
        "bits of entropy: one more stands for twice as many that are as even; the first round's V looks at all rounds"
    )
    return figure("What was visited.", note, lines(series, "round", "bits"))


def _spent(rows: Sequence[Row]) -> Html:
    points = [(row["env_steps"], row["validation"]) for row in rows]
    errors = [row["validation_se"] for row in rows]
    note = "all steps of the real game so far, rollouts and evolution together"
    return figure(
        "Score against steps.", note, lines([Series("validation", points, errors=errors, dots=True)], "steps", "score")
    )


def _series(rows: Sequence[Row], name: str, colour: Any, of: Callable[[Row], tuple[float, float] | None]) -> Series:
    found = [(at, *pair) for at, row in enumerate(rows) if (pair := of(row))]
    points = [(at, value) for at, value, _ in found]
    return Series(name, points, colour, errors=[error for *_, error in found], dots=True)


def _table(rows: Sequence[Row]) -> Html:
    there = [name for name in COVERED if any(name in row.get("coverage", {}) for row in rows)]
    heads = ["round", "steps", "validation", "dream", "gap", "NLL, own", "by the first M", "NLL, first"]
    heads += [COVERED[name][0] for name in there]
    return table(heads, [_cells(row, there) for row in rows], range(1, len(heads)), strong=best_of(rows))


def _cells(row: Row, there: Sequence[str]) -> list[str]:
    dream, covered = row.get("dream"), row.get("coverage", {})
    nll = [row["nll"].get(f"round-{row['round']:03}"), row.get("nll_before"), row["nll"].get("round-000")]
    return [
        _name(row),
        f"{row['env_steps']:,}",
        f"{row['validation']:,.0f} ± {row['validation_se']:,.0f}",
        f"{dream['mean']:,.0f} ± {dream['se']:,.0f}" if dream else "-",
        f"{dream['mean'] - row['validation']:+,.0f}" if dream else "-",
        *(f"{one['mean']:.3f}" if one else "-" for one in nll),
        *(COVERED[name][1].format(covered[name]) if name in covered else "-" for name in there),
    ]


def _under_way(rounds: Rounds) -> Html | None:
    """What has no row yet, and how far it is."""
    part = next((part for part in rounds.parts if part not in rounds.complete), None)
    if part is None:
        return None
    statuses = stage_statuses(part)
    done = sum(statuses[name].complete for name in PREPARING)
    name = part.uri.rpartition("/")[2]
    command = f"python -m jobs.iterate --run {shlex.quote(rounds.run.uri)}"
    return joined([missing(f"of {name} {done} of {len(PREPARING)} stages are complete: `{command}` goes on")])
