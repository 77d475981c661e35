"""The results of a sweep in the form of the paper's table of temperatures (section 4): Markdown, CSV, JSON, a plot."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm.experiments.sweep import TauResult
from wm.report.charts import Series, lines
from wm.report.page import tag
from wm.report.published import PUBLISHED
from wm.visuals.style import CSS

SCORES = ("dream", "real")


@dataclass(frozen=True)
class Sample:
    """Scores of the episodes of all seeds."""

    mean: float
    std: float  # between episodes, as in the paper
    episodes: int
    seeds: tuple[float, ...]  # mean of each seed

    @property
    def std_of_seeds(self) -> float:
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else 0.0

    def __str__(self) -> str:
        return f"{self.mean:.0f} ± {self.std:.0f}"


@dataclass(frozen=True)
class Row:
    tau: float
    dream: Sample
    real: Sample
    validation: float  # mean over seeds of the validation in the real game

    @property
    def gap(self) -> float:
        """The score in the dream minus the score in the real game."""
        return self.dream.mean - self.real.mean


def rows_of(outcomes: Sequence[TauResult]) -> list[Row]:
    """One row for each tau, in ascending order."""
    rows = []
    for tau in sorted({outcome.tau for outcome in outcomes}):
        these = sorted((one for one in outcomes if one.tau == tau), key=lambda one: one.seed)
        dream, real = (_pooled([getattr(one, name) for one in these]) for name in SCORES)
        rows.append(Row(tau, dream, real, float(np.mean([one.validation for one in these]))))
    return rows


def _pooled(parts: Sequence[tuple[float, float, int]]) -> Sample:
    """Mean and standard deviation of all episodes, computed from those of each seed."""
    means, stds, counts = np.array(parts, dtype=float).T
    total = counts.sum()
    mean = float((counts * means).sum() / total)
    squares = ((counts - 1) * stds**2 + counts * (means - mean) ** 2).sum()
    return Sample(mean, float(np.sqrt(squares / max(1, total - 1))), int(total), tuple(means.tolist()))


def paper_of(game: str) -> dict[float, dict[str, tuple[float, float]]]:
    """tau -> score -> (mean, std), as published for this game."""
    published = PUBLISHED.get(game)
    taus = published.taus if published else ()
    return {
        tau: {"dream": (dream.score, dream.spread or 0.0), "real": (real.score, real.spread or 0.0)}
        for tau, dream, real in taus
    }


def markdown(rows: Sequence[Row], game: str) -> str:
    paper = paper_of(game)
    best = max(rows, key=lambda row: row.validation).tau if rows else None
    head = ["tau", "in the dream", "in the real game", "gap", "between seeds", "episodes"]
    head += ["paper: dream", "paper: real"] if paper else []
    table = [head, ["--:"] * len(head)]
    for row in rows:
        cells = [
            f"**{row.tau:.2f}**" if row.tau == best else f"{row.tau:.2f}",
            str(row.dream),
            str(row.real),
            f"{row.gap:+.0f}",
            f"{row.dream.std_of_seeds:.0f} / {row.real.std_of_seeds:.0f}" if len(row.real.seeds) > 1 else "-",
            f"{len(row.real.seeds)} x {row.real.episodes // len(row.real.seeds)}",
        ]
        if paper:
            known = paper.get(row.tau)
            cells += [f"{known[name][0]:.0f} ± {known[name][1]:.0f}" if known else "-" for name in SCORES]
        table.append(cells)
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    return (
        f"{text}\n\nMean ± standard deviation of episodes; *gap*: score in the dream minus score in the real game;"
        " *between seeds*: standard deviation of the seeds' means, dream / real. Bold: the tau with the best"
        " validation.\n"
    )


def comma_separated(outcomes: Sequence[TauResult]) -> str:
    """One line for each trial."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [f"{score}_{what}" for score in SCORES for what in ("score", "std", "episodes")]
    writer.writerow(["tau", "seed", "generations", "validation", *names, "run"])
    for one in sorted(outcomes, key=lambda one: (one.tau, one.seed)):
        numbers = [*one.dream, *one.real]
        writer.writerow([one.tau, one.seed, one.generations, one.validation, *numbers, one.uri])
    return file.getvalue()


def data(rows: Sequence[Row], game: str) -> dict[str, Any]:
    """The same results for JSON; reports read them."""
    paper = paper_of(game)
    return {
        "game": game,
        "rows": [
            {
                "tau": row.tau,
                "gap": row.gap,
                "validation": row.validation,
                "paper": paper.get(row.tau),
                **{
                    name: {"mean": one.mean, "std": one.std, "episodes": one.episodes, "seeds": list(one.seeds)}
                    for name, one in (("dream", row.dream), ("real", row.real))
                },
            }
            for row in rows
        ],
    }


def curves(table: dict[str, Any]) -> list[Series]:
    """Curves of both scores over tau with standard errors, and of the paper's; `table` comes from `data`."""
    rows, series = table["rows"], []
    for name, colour in (("dream", "two"), ("real", "one")):
        points = [(row["tau"], row[name]["mean"]) for row in rows]
        errors = [row[name]["std"] / math.sqrt(row[name]["episodes"]) for row in rows]
        series.append(Series(f"in the {_place(name)}", points, colour, errors=errors, dots=True))  # type: ignore[arg-type]
        theirs = [(tau, known[name][0]) for tau, known in sorted(paper_of(table["game"]).items())]
        if theirs:
            series.append(Series(f"paper: {_place(name)}", theirs, colour, dashed=True, quiet=True))  # type: ignore[arg-type]
    return series


def plot(rows: Sequence[Row], game: str) -> str:
    """The curves as an SVG file."""
    series = curves(data(rows, game))
    chart = str(lines(series, "temperature tau", "score", low=0.0))
    begin = chart.rindex("<svg")  # the last one: the legend has small ones
    words = [
        tag("text", one.name, x=60 + 180 * (index // 2), y=-28 + 16 * (index % 2), style=f"fill: var(--{one.colour})")
        for index, one in enumerate(series)
    ]
    body = chart[chart.index(">", begin) + 1 : chart.rindex("</svg>")]
    style = f"<style>{CSS} svg {{ background: var(--paper); }}</style>"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -48 420 310" width="840" height="620">'
        f"{style}{''.join(words)}{body}</svg>\n"
    )


def _place(name: str) -> str:
    return "dream" if name == "dream" else "real game"
