"""Scores over the temperature: agents of a sweep, in the dreams that they evolved in and in the real game."""

from typing import Any

from wm.experiments.sweep import FOLDER
from wm.report.charts import lines
from wm.report.page import Html, columns, figure, table, tag
from wm.report.run_view import RunView
from wm.report.temperature import curves, paper_of
from wm.runs.reader import read
from wm.runs.storage import open_storage
from wm.schemas import integer, measured, number, plain, record, sequence, text

HEADS = ("tau", "in the dream", "in the game", "gap", "paper: dream", "paper: game")
GAP = "The gap is the dream score minus the game score; near 0 is best, a large gap means that C exploits errors of M."

SCORE = record({"mean": measured, "std": measured, "episodes": integer(), "seeds": sequence(measured)})
ROW = record(
    {
        "tau": number(0),
        "gap": measured,
        "validation": measured,
        "paper": plain,
        "dream": SCORE,
        "real": SCORE,
    }
)
TABLE = record({"game": text(), "rows": sequence(ROW)})


def temperatures(view: RunView) -> Html | None:
    """The table and curves of a sweep, or this run alone, with the published scores if there are any."""
    game = view.config.game
    paper = paper_of(game)
    swept = read(
        open_storage(f"{view.run.uri}/{FOLDER}"), "table.json", TABLE, "delete it and run `python -m jobs.sweep` again"
    )
    scores = swept or {"game": game, "rows": _own(view)}
    if not scores["rows"] or not (swept or paper):
        return None
    own = {row["tau"]: row for row in scores["rows"]}
    rows = []
    for tau in sorted(own.keys() | paper.keys()):
        row, theirs = own.get(tau), paper.get(tau)
        cells = [_score(row[name]["mean"], row[name]["std"]) if row else "" for name in ("dream", "real")]
        cells.append(f"{row['gap']:+,.0f}" if row else "")
        rows.append(
            (f"{tau:g}", *cells, *((_score(*theirs[name]) for name in ("dream", "real")) if theirs else ("", "")))
        )
    heads = HEADS if paper else HEADS[:4]
    seeds = max(len(row["real"]["seeds"]) for row in scores["rows"])
    episodes = max(row["real"]["episodes"] for row in scores["rows"])
    note = (
        f"{GAP} SD is the standard deviation of {episodes:,} episodes from {seeds} evolution{'s' if seeds > 1 else ''}."
    )
    curve = lines(curves(scores), "temperature tau", "score", low=0.0) if len(own) > 1 else None
    numbers = table(heads, [row[: len(heads)] for row in rows], range(1, len(heads)))
    return figure("Evolution in dreams at several temperatures.", note, columns(curve, numbers) if curve else numbers)


def _own(view: RunView) -> list[dict[str, Any]]:
    """This run as a sweep with a single trial."""
    made = view.manifest("score")
    if made is None or view.config.evolve.where != "dream" or "dream_score" not in made.metrics:
        return []
    of = made.metrics
    dream = {"mean": of["dream_score"], "std": of["dream_std"], "episodes": of["dream_episodes"], "seeds": [0]}
    real = {"mean": of["score"], "std": of["std"], "episodes": of["episodes"], "seeds": [0]}
    return [{"tau": view.config.evolve.tau, "dream": dream, "real": real, "gap": dream["mean"] - real["mean"]}]


def _score(mean: float, std: float) -> Html:
    """May break into two lines in a narrow table."""
    return tag("span", f"{mean:,.0f} (SD\u00a0{std:,.0f})", class_="wraps")
