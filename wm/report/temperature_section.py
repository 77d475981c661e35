"""What temperature does: the agents of a sweep, in the dream that each grew up in and in the real game."""

import json
from typing import Any

from wm.experiments.sweep import FOLDER
from wm.report.charts import lines
from wm.report.page import Html, columns, figure, table, tag
from wm.report.run_view import RunView
from wm.report.temperature import curves, paper_of

HEADS = ("tau", "in the dream", "in the game", "gap", "paper: dream", "paper: game")
GAP = "The gap is what the dream promised too much: in a cold dream C learns to cheat."


def temperatures(found: RunView) -> Html | None:
    """The sweep's table and curves, or this run alone; where others have published theirs, beside them."""
    game = found.config.game
    paper = paper_of(game)
    swept = json.loads(found.run.storage.get(f"{FOLDER}/table.json") or b"null")
    shown = swept or {"game": game, "rows": _own(found)}
    if not shown["rows"] or not (swept or paper):
        return None
    own = {row["tau"]: row for row in shown["rows"]}
    rows = []
    for tau in sorted(own.keys() | paper.keys()):
        row, theirs = own.get(tau), paper.get(tau)
        cells = [_said(row[name]["mean"], row[name]["std"]) if row else "" for name in ("dream", "real")]
        cells.append(f"{row['gap']:+,.0f}" if row else "")
        rows.append(
            (f"{tau:g}", *cells, *((_said(*theirs[name]) for name in ("dream", "real")) if theirs else ("", "")))
        )
    heads = HEADS if paper else HEADS[:4]
    seeds = max(len(row["real"]["seeds"]) for row in shown["rows"])
    episodes = max(row["real"]["episodes"] for row in shown["rows"])
    note = (
        f"{GAP} ± is the deviation between episodes, {episodes:,} of {seeds} evolution{'s' if seeds > 1 else ''} of C"
    )
    curve = lines(curves(shown), "temperature tau", "score", low=0.0) if len(own) > 1 else None
    numbers = table(heads, [row[: len(heads)] for row in rows], range(1, len(heads)))
    return figure("Evolved in dreams of several temperatures.", note, columns(curve, numbers) if curve else numbers)


def _own(found: RunView) -> list[dict[str, Any]]:
    """This run as a sweep of one."""
    made = found.manifest("score")
    if made is None or found.config.evolve.where != "dream" or "dream_score" not in made.metrics:
        return []
    of = made.metrics
    dream = {"mean": of["dream_score"], "std": of["dream_std"], "episodes": of["dream_episodes"], "seeds": [0]}
    real = {"mean": of["score"], "std": of["std"], "episodes": of["episodes"], "seeds": [0]}
    return [{"tau": found.config.evolve.tau, "dream": dream, "real": real, "gap": dream["mean"] - real["mean"]}]


def _said(mean: float, std: float) -> Html:
    """In two lines where one is too long."""
    return tag("span", f"{mean:,.0f} ±\u00a0{std:,.0f}", class_="wraps")
