"""The results of a search as Markdown, CSV and JSON."""

import csv
import io
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wm.config.fields import with_overrides
from wm.config.schema import Config
from wm.experiments.importance import Importance, importances
from wm.experiments.spaces import Space
from wm.experiments.trials import TrialResult, Validation
from wm.experiments.tune import Search
from wm.report.provenance import changed_flags
from wm.runs.run import open_existing
from wm.statistics import mean_of


@dataclass(frozen=True)
class Row:
    """A configuration."""

    number: int
    values: Mapping[str, Any]
    state: str  # complete, stopped, failed, or unfinished
    reason: str
    runs: tuple[TrialResult, ...]  # one for each complete seed
    mean: float  # of the best validations of all seeds
    error: float  # standard error
    generations: int
    env_steps: int
    curve: tuple[Validation, ...]  # of the first seed


@dataclass(frozen=True)
class Results:
    uri: str
    preset: str
    config: Config
    spaces: tuple[Space, ...]
    searcher: str
    default: Mapping[str, Any]  # the base's own values
    rows: tuple[Row, ...]  # complete ones first, by descending validation
    important: tuple[Importance, ...]
    score: Mapping[str, Any]  # of the best configuration's first seed; empty if it was not scored

    @staticmethod
    def of(search: Search) -> "Results":
        rows = [_row(search, number) for number in sorted(search.proposals)]
        order = {"complete": 0, "stopped": 1, "unfinished": 2, "failed": 3}
        rows.sort(key=lambda row: (order[row.state], -row.mean if math.isfinite(row.mean) else 0.0, row.number))
        complete = [row for row in rows if row.state == "complete"]
        spaces = search.definition.spaces
        found = importances(spaces, [dict(row.values) for row in complete], [row.mean for row in complete])
        preset = open_existing(search.place.base).preset
        uri, kind = search.storage.uri, search.definition.kind
        return Results(uri, preset, search.config, spaces, kind, search.default, tuple(rows), tuple(found), {})

    @property
    def best(self) -> Row | None:
        return self.rows[0] if self.rows and self.rows[0].state == "complete" else None

    @property
    def fields(self) -> list[str]:
        return [space.field for space in self.spaces]

    def scored(self, metrics: Mapping[str, Any]) -> "Results":
        return replace(self, score=metrics)

    def ties(self, row: Row) -> bool:
        """Whether the row can't be told from the best one: their difference is within two standard errors."""
        best = self.best
        if best is None or row.state != "complete" or row is best:
            return False
        return best.mean - row.mean <= 2 * math.hypot(best.error, row.error)

    def command(self) -> str:
        """The best configuration as a command to type, on the rollouts and models of this search where possible."""
        assert self.best is not None, "no complete trial"
        config = with_overrides(self.config, dict(self.best.values))
        flags = changed_flags(self.preset, config)
        base = ["--base", self.best.runs[0].uri]
        return shlex.join(["python", "-m", "jobs.pipeline", self.preset, "--run", f"{self.uri}-best", *base, *flags])


def _row(search: Search, number: int) -> Row:
    trials = [search.trial(number, seed) for seed in range(search.definition.seeds)]
    runs = tuple(search.results[trial.name] for trial in trials if trial.name in search.results)
    ended = [search.outcomes[trial.name] for trial in trials if trial.name in search.outcomes]
    curve = tuple(search.validations.get(trials[0].name, ()))
    state = ended[0].state if ended else "complete" if len(runs) == len(trials) else "unfinished"
    scores = [run.validation.score for run in runs]
    if not scores and curve:
        scores = [max(one.score for one in curve)]
    mean = mean_of(scores).mean if scores else math.nan
    error = runs[0].validation.error if len(runs) == 1 else mean_of(scores).error if scores else math.nan
    generations = ended[0].generation if ended else sum(run.generations for run in runs)
    steps = sum(run.env_steps for run in runs)
    reason = ended[0].reason.splitlines()[0] if ended and ended[0].reason else ""
    return Row(number, search.proposals[number], state, reason, runs, mean, error, generations, steps, curve)


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def validation_of(row: Row) -> str:
    if not math.isfinite(row.mean):
        return "-"
    return f"{row.mean:.4g} ± {row.error:.2g}" if row.state == "complete" else f"{row.mean:.4g}"


def markdown(results: Results) -> str:
    heads = ["trial", *results.fields, "validation", "generations", "state"]
    table = [heads, [":--", *["--:"] * (len(heads) - 2), ":--"]]
    for row in results.rows:
        name = f"**{row.number:04d}**" if row is results.best else f"{row.number:04d}"
        state = "complete, ties with the best" if results.ties(row) else row.state
        cells = [shown(row.values[field]) for field in results.fields]
        table.append([name, *cells, validation_of(row), str(row.generations), state])
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    lines = [text, "", "Best validation of each configuration ± standard error. Bold: the best; *ties*: within two"]
    lines[-1] += " standard errors of the difference."
    if results.important:
        parts = [f"{one.field} {one.share:.0%} (p = {one.p:.2g})" for one in results.important]
        lines.append(f"Share of the variance that a field explains alone: {', '.join(parts)}.")
    if results.score:
        score = results.score
        lines.append(
            f"Score of the best: {score['score']:.4g} ± {score['se']:.2g} on {score['episodes']} test episodes."
        )
    if results.best:
        lines.append(f"\nBest configuration: `{results.command()}`")
    return "\n".join(lines) + "\n"


def comma_separated(results: Results) -> str:
    """One line for each run, and one for each configuration without a complete run."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["trial", "seed", *results.fields, "state", "generations", "validation", "error", "env_steps", "run"]
    )
    for row in sorted(results.rows, key=lambda row: row.number):
        values = [row.values[field] for field in results.fields]
        for run in row.runs:
            best = run.validation
            numbers = [run.generations, best.score, best.error, run.env_steps, run.uri]
            writer.writerow([row.number, run.trial.seed, *values, "complete", *numbers])
        if not row.runs:
            last = ["" if not math.isfinite(row.mean) else row.mean, "", "", ""]
            writer.writerow([row.number, "", *values, row.state, row.generations, *last])
    return file.getvalue()


def data(results: Results) -> dict[str, Any]:
    """The same results for JSON."""
    return {
        "preset": results.preset,
        "game": results.config.game,
        "searcher": results.searcher,
        "fields": results.fields,
        "default": dict(results.default),
        "trials": [_numbers(row, results) for row in results.rows],
        "importance": [vars(one) for one in results.important],
        "best": results.command() if results.best else None,
        "score": {name: results.score[name] for name in ("score", "se", "episodes") if name in results.score},
    }


def _numbers(row: Row, results: Results) -> dict[str, Any]:
    finite = math.isfinite(row.mean)
    return {
        "number": row.number,
        "values": dict(row.values),
        "state": row.state,
        "reason": row.reason,
        "validation": row.mean if finite else None,
        "error": row.error if finite else None,
        "ties": results.ties(row),
        "generations": row.generations,
        "env_steps": row.env_steps,
        "runs": [run.uri for run in row.runs],
        "validations": [list(vars(one).values()) for one in row.curve],
    }


def rows_with(results: Results, states: Sequence[str]) -> list[Row]:
    return [row for row in results.rows if row.state in states]
