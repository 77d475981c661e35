"""Show the progress of a run and the next command: `python -m jobs.status --run URI`."""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.parser import Parser, filled
from jobs.runner import guard
from wm.errors import UserError
from wm.experiments.rounds import PREPARING, is_complete, rounds_of, row_of
from wm.experiments.verify import verify
from wm.formatting import format_bytes, format_number
from wm.runs.run import Run, open_existing
from wm.runs.status import StageStatus, stage_statuses

SHOWN = ("frames", "held_out_loss", "held_out_nll", "best_validation", "env_steps", "score", "se")


def status(uri: str) -> dict[str, Any]:
    run = open_existing(uri)
    if rounds := rounds_of(run):
        return status_of_rounds(run, rounds)
    stages = stage_statuses(run)
    base = f" · base {run.base.uri}" if run.base else ""
    table = Table(title=f"{run.uri} · {run.preset}{base}", title_justify="left")
    for column in ("stage", "progress", "size", "result"):
        table.add_column(column)
    for stage in stages.values():
        table.add_row(stage.name, _progress(stage), format_bytes(stage.bytes), _result(stage))
    console = Console(stderr=True)
    console.print(table)
    missing = next((stage for stage in stages.values() if not stage.complete), None)
    next_command = f"python -m jobs.{missing.name} --run {run.uri}" if missing else None
    console.print(f"next: {next_command}" if next_command else "complete", soft_wrap=True)
    return {
        "job": "status",
        "run": run.uri,
        "next": next_command,
        "stages": {
            name: {
                "complete": stage.complete,
                "extent": stage.manifest.extent if stage.manifest else 0,
                "wanted": stage.wanted,
                "bytes": stage.bytes,
                "from": stage.manifest.storage.uri if stage.manifest else None,
            }
            for name, stage in stages.items()
        },
    }


def check(uri: str) -> dict[str, Any]:
    """Read and verify all files of the run; the status itself only reads what it shows."""
    run = open_existing(uri)
    found = verify(run)
    if found.problems:
        raise UserError("\n".join(found.problems))
    for file in found.unknown:
        print(f"not part of a run: {file}", file=sys.stderr)
    print(
        f"{found.files:,} files ({format_bytes(found.bytes)}) are undamaged; {found.outputs:,} pictures and other"
        " outputs have no hash",
        file=sys.stderr,
    )
    return {
        "job": "status",
        "run": run.uri,
        "verified": found.files,
        "bytes": found.bytes,
        "outputs": found.outputs,
        "unknown": found.unknown,
    }


def status_of_rounds(run: Run, rounds: list[Run]) -> dict[str, Any]:
    """Show one row for each round, which is a run with its own status."""
    table = Table(title=f"{run.uri} · {run.preset} · {len(rounds)} of {run.config.rounds.count} rounds started")
    for column in ("round", "progress", "steps", "validation", "dream"):
        table.add_column(column)
    summaries = []
    for part in rounds:
        row, stages = row_of(part), stage_statuses(part)
        current = next((stages[name] for name in PREPARING if not stages[name].complete), None)
        progress = f"{current.name}: {_progress(current)}" if current else "complete" if row else "not measured yet"
        shown = [f"{row['env_steps']:,}", f"{row['validation']:,.1f}"] if row else ["", ""]
        dream = f"{row['dream']['mean']:,.1f}" if row.get("dream") else ""
        table.add_row(part.uri.rpartition("/")[2], progress, *shown, dream)
        summaries.append({"run": part.uri, "state": progress} | row)
    console = Console(stderr=True)
    console.print(table)
    next_command = None if is_complete(run) else f"python -m jobs.iterate --run {run.uri}"
    console.print(f"next: {next_command}" if next_command else "complete", soft_wrap=True)
    return {"job": "status", "run": run.uri, "next": next_command, "rounds": summaries}


def _progress(stage: StageStatus) -> str:
    complete = stage.manifest.extent if stage.manifest else 0
    if stage.checkpoint > complete:
        kept = f"; {complete:,} complete" if complete else ""
        return f"at {stage.checkpoint:,} of {stage.wanted:,} {stage.info.unit}{kept}"
    if stage.manifest is None:
        return "started" if stage.bytes else "-"
    return f"{complete:,} of {stage.wanted:,} {stage.info.unit}"


def _result(stage: StageStatus) -> str:
    if stage.manifest is None:
        return ""
    metrics = stage.manifest.metrics
    return " · ".join(f"{name} {format_number(metrics[name])}" for name in SHOWN if name in metrics)


if __name__ == "__main__":
    parser = Parser(prog="python -m jobs.status", description=__doc__)
    parser.add_argument("--check", action="store_true", help="read all files of the run and verify them")
    parser.add_argument("--run", required=True, type=filled, help="the run: a folder or s3://bucket/prefix")
    arguments = parser.parse_args()
    sys.exit(guard(lambda: check(arguments.run) if arguments.check else status(arguments.run)))
