"""What a run holds and what comes next: `python -m jobs.status --run URI`."""

import argparse
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.runner import guard
from wm.experiments.rounds import PREPARING, begun, iterated, polished_so_far, row_of
from wm.formatting import number
from wm.runs.run import Run, open_existing
from wm.runs.status import StageStatus, stage_statuses


def status(uri: str) -> dict[str, Any]:
    run = open_existing(uri)
    if parts := begun(run):
        return rounds(run, parts)
    stations = stage_statuses(run)
    table = Table(
        title=f"{run.uri} · {run.preset}{f' · base {run.base.uri}' if run.base else ''}", title_justify="left"
    )
    for column in ("stage", "state", "size", "result"):
        table.add_column(column)
    for station in stations:
        table.add_row(station.stage, _state(station), f"{station.bytes / 1e6:,.1f} MB", _result(station))
    console = Console(stderr=True)
    console.print(table)
    missing = next((station for station in stations if not station.complete), None)
    following = f"python -m jobs.{missing.job} --run {run.uri}" if missing else None
    console.print(f"next: {following}" if following else "complete", soft_wrap=True)
    return {
        "job": "status",
        "run": run.uri,
        "next": following,
        "stages": {
            station.stage: {
                "complete": station.complete,
                "extent": station.manifest.extent if station.manifest else 0,
                "wanted": station.wanted,
                "bytes": station.bytes,
                "from": station.manifest.storage.uri if station.manifest else None,
            }
            for station in stations
        },
    }


def rounds(run: Run, parts: list[Run]) -> dict[str, Any]:
    """Of a run that goes in rounds: each is an ordinary run, and its own status says more."""
    table = Table(title=f"{run.uri} · {run.preset} · {len(parts)} of {run.config.rounds.count} rounds begun")
    for column in ("round", "state", "steps", "validation", "dream"):
        table.add_column(column)
    found = []
    for part in [*parts, *polished_so_far(parts)]:
        row, stations = row_of(part), stage_statuses(part)[: len(PREPARING)]
        waiting = next((station for station in stations if not station.complete), None)
        state = f"{waiting.stage}: {_state(waiting)}" if waiting else "complete" if row else "to be measured"
        shown = [f"{row['env_steps']:,}", f"{row['validation']:,.1f}"] if row else ["", ""]
        dream = f"{row['dream']['mean']:,.1f}" if row.get("dream") else ""
        table.add_row(part.uri.rpartition("/")[2], state, *shown, dream)
        found.append({"run": part.uri, "state": state} | row)
    console = Console(stderr=True)
    console.print(table)
    following = None if iterated(run) else f"python -m jobs.iterate --run {run.uri}"
    console.print(f"next: {following}" if following else "complete", soft_wrap=True)
    return {"job": "status", "run": run.uri, "next": following, "rounds": found}


def _state(station: StageStatus) -> str:
    complete = station.manifest.extent if station.manifest else 0
    if station.begun > complete:
        kept = f"; {complete:,} complete" if complete else ""
        return f"at {station.begun:,} of {station.wanted:,} {station.unit}{kept}"
    if station.manifest is None:
        return "begun" if station.bytes else "-"
    return f"{complete:,} of {station.wanted:,} {station.unit}"


def _result(station: StageStatus) -> str:
    if station.manifest is None:
        return ""
    metrics = station.manifest.metrics
    shown = ("frames", "held_out_loss", "held_out_nll", "best_validation", "env_steps", "score", "se")
    return " · ".join(f"{name} {number(metrics[name])}" for name in shown if name in metrics)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m jobs.status", description=__doc__)
    parser.add_argument("--run", required=True, help="the run: a folder or s3://bucket/prefix")
    arguments = parser.parse_args()
    sys.exit(guard(lambda: status(arguments.run)))
