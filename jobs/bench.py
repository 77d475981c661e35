"""Benchmark this machine against naive baselines: `python -m jobs.bench [NAME ...]`.

Ratios are comparable between machines; absolute figures help to size a cluster. `python -m jobs.bench gpu` checks and
benchmarks a GPU; it needs only torch and numpy.
"""

import logging
import sys
from typing import Any

if __name__ == "__main__" and sys.argv[1:2] == ["gpu"]:  # before imports of packages that it does not need
    from jobs.benchmarks import gpu

    sys.exit(gpu.main(sys.argv[2:]))

from rich.console import Console
from rich.table import Table

from jobs.benchmarks import agent, data, dispatch, evolution, games, scaling, simulation, training
from jobs.benchmarks.measure import Row
from jobs.parser import Parser
from jobs.runner import guard
from wm.runs.provenance import circumstances

BENCHMARKS = {
    "games": games.games,  # CarRacing, fast and exact
    "collect": data.collecting,  # rollouts into shards, and back
    "read": data.reading,
    "vision": training.vision,  # training V
    "encode": training.encoding,
    "memory": training.memory,  # training M
    "agent": agent.real,  # V, M and C in the real game
    "dream": agent.dreaming,
    "evolution": evolution.evolution,  # all workers over as many agents
    "dispatch": dispatch.dispatch,  # empty units through Ray
    "scaling": scaling.scaling,  # the cost of a generation for its driver
    "simulation": simulation.simulation,  # a cluster of workers that sleep
}


def bench(names: list[str], seconds: float, as_json: bool) -> dict[str, Any]:
    console = Console(stderr=True)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    rows: list[Row] = []
    for number, name in enumerate(names, 1):
        console.print(f"{number}/{len(names)} {name} ...", highlight=False)
        rows += BENCHMARKS[name](seconds)
    if not as_json:
        table = Table(title=f"{circumstances()['processor']}", title_justify="left")
        for column, justify in (("benchmark", "left"), ("figure", "right"), ("baseline", "right"), ("ratio", "right")):
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        for row in rows:
            plain = f"{row.plain:,.4g}" if row.plain is not None else ""
            ratio = f"{row.ratio:.3g}x" if row.ratio is not None else ""
            table.add_row(row.what, f"{row.figure:,.4g} {row.unit}", plain, ratio)
        console.print(table)
    return {"job": "bench", "machine": circumstances(), "figures": [row.as_dict() for row in rows]}


if __name__ == "__main__":
    parser = Parser(prog="python -m jobs.bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; default: all; or gpu, alone"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds per measurement (default 4)")
    parser.add_argument("--json", action="store_true", help="no table, only the JSON at the end of the output")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]}: use {', '.join(BENCHMARKS)}")
    if not arguments.seconds > 0:
        parser.error(f"--seconds must be above 0, got {arguments.seconds}")
    sys.exit(guard(lambda: bench(arguments.names or list(BENCHMARKS), arguments.seconds, arguments.json)))
