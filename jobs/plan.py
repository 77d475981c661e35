"""Estimate time, cost and disk space of a run: `python -m jobs.plan PRESET --cpus N [--gpus K]`.

The estimate lists each stage, or with `--rounds N` each round of jobs.iterate. It uses the rates of a reference
machine; `--measure` takes those of this machine, from a measurement of seconds. For another machine, run
`python -m jobs.bench > bench.json` there and add `--bench bench.json`.
"""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.command_line import configured
from jobs.parser import Parser
from jobs.runner import guard
from wm.errors import UserError
from wm.experiments.plan import Estimate, Rates, estimate, estimate_rounds, rates_of, side_by_side
from wm.formatting import format_duration

MOST_ROUNDS = 100
ASSUMED = (
    "Assumptions: {rates}; episodes in evolution last 0.6 of the time limit; a stage holds only the machines it uses;"
    " no work is lost."
)


def plan(arguments: argparse.Namespace, rest: list[str]) -> dict[str, Any]:
    if arguments.cpus is None:
        arguments.cpus = (os.cpu_count() or 1) if arguments.measure else 2
    if arguments.cpus < 1 or arguments.gpus < 0:
        raise UserError(f"--cpus must be 1 or more and --gpus 0 or more, got {arguments.cpus} and {arguments.gpus}")
    if not 0 <= arguments.rounds <= MOST_ROUNDS:
        raise UserError(f"--rounds must be in [0, {MOST_ROUNDS}], got {arguments.rounds}")
    config = configured("plan", __doc__ or "", arguments.preset, rest)
    if not 1 <= arguments.runs <= arguments.cpus:
        raise UserError(f"--runs must be in [1, {arguments.cpus}], the number of CPUs, got {arguments.runs}")
    rates = _measured() if arguments.measure else _rates(arguments.bench)
    cpus = arguments.cpus // arguments.runs
    if arguments.rounds:
        table = estimate_rounds(config, arguments.rounds, cpus, arguments.gpus, rates)
        stages = [
            dataclasses.replace(stage, stage=f"{name} {stage.stage}") for name, row in table.items() for stage in row
        ]
    else:
        stages = estimate(config, cpus, arguments.gpus, rates)
    if arguments.runs > 1:
        stages = side_by_side(stages, arguments.runs, arguments.gpus)
    return {"job": "plan", "preset": arguments.preset, **_print_table(stages, arguments)}


def _print_table(stages: list[Estimate], arguments: argparse.Namespace) -> dict[str, Any]:
    """Print the estimates and return them as the job's result."""
    rows = [
        {
            **dataclasses.asdict(stage),
            "cost": stage.seconds / 3600 * (stage.cpus * arguments.price_cpu + stage.gpus * arguments.price_gpu),
        }
        for stage in stages
    ]
    table = Table(title=f"{arguments.preset} on {arguments.cpus} CPUs, {arguments.gpus} GPUs", title_justify="left")
    for column, justify in (
        ("stage", "left"),
        ("work", "left"),
        ("time", "right"),
        ("machines", "right"),
        ("disk", "right"),
        ("cost", "right"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        machines = " + ".join(f"{row[kind]} {kind[:-1].upper()}s" for kind in ("cpus", "gpus") if row[kind])
        table.add_row(
            row["stage"],
            row["work"],
            format_duration(row["seconds"]),
            machines,
            f"{row['bytes'] / 1e9:,.2f} GB",
            f"{row['cost']:,.2f}",
        )
    total = {name: sum(row[name] for row in rows) for name in ("seconds", "bytes", "cost")}
    table.add_row(
        "all", "", format_duration(total["seconds"]), "", f"{total['bytes'] / 1e9:,.2f} GB", f"{total['cost']:,.2f}"
    )
    console = Console(stderr=True)
    console.print(table)
    console.print(ASSUMED.format(rates=_assumed_rates(arguments)), soft_wrap=True)
    if arguments.measure:
        duration = format_duration(total["seconds"])
        console.print(f"{arguments.preset} will take about {duration} here, if other programs take no more than now")
    return {"stages": rows, **total}


def _measured() -> Rates:
    from jobs.benchmarks.quick import quick_rates

    print("measuring this machine for some seconds ...", file=sys.stderr, flush=True)
    return quick_rates()


def _rates(path: str | None) -> Rates:
    if path is None:
        return Rates()
    try:
        rows = json.loads(Path(path).read_text().splitlines()[-1])["figures"]
        return rates_of({row["what"]: row["figure"] for row in rows})
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        raise UserError(
            f"{path} is not the output of jobs.bench: make it with `python -m jobs.bench > {path}`"
        ) from None


def _assumed_rates(arguments: argparse.Namespace) -> str:
    bench = arguments.bench
    rates = f"the rates in {bench}" if bench else "cores of the reference machine (AMD EPYC, AVX2)"
    if arguments.measure:
        rates = "the rates of this machine, measured now"
    assumed = "a GPU is 25 times as fast as two cores for V, 15 times for M, 50 times as fast as one for dreams"
    gpu = f"; {assumed} (not measured, unless {bench or '--bench'} has figures of `jobs.bench gpu`)"
    return rates + (gpu if arguments.gpus else "")


if __name__ == "__main__":
    parser = Parser(prog="python -m jobs.plan", description=__doc__, epilog="Every field of the config is a flag, too.")
    parser.add_argument("preset", help="a preset of jobs.pipeline")
    parser.add_argument("--cpus", type=int, help="workers (default 2; with --measure, those of this machine)")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs for V, M and dreams on cuda (default 0: CPUs)")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of jobs.iterate (default: one pipeline)")
    parser.add_argument(
        "--runs", type=int, default=1, help="runs at the same time, such as seeds, which share the machines"
    )
    parser.add_argument("--price-cpu", type=float, default=0.0, help="price of a CPU hour")
    parser.add_argument("--price-gpu", type=float, default=0.0, help="price of a GPU hour")
    parser.add_argument("--measure", action="store_true", help="measure this machine for some seconds")
    parser.add_argument("--bench", help="a file with the output of jobs.bench on the machine")
    known, rest = parser.parse_known_args()
    sys.exit(guard(lambda: plan(known, rest)))
