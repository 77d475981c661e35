"""Write an HTML report of a run: `python -m jobs.report --run URI`."""

import logging
import sys
import time
from typing import Any

from jobs.parser import Parser, filled
from jobs.runner import guard
from wm.experiments.baselines import measure
from wm.pool import set_threads
from wm.report.rounds_section import Rounds
from wm.report.run_page import run_report
from wm.runs.run import open_existing

NAME = "report.html"


def report(uri: str) -> dict[str, Any]:
    """Write the report into the run, which need not be complete."""
    start, run = time.monotonic(), open_existing(uri)
    set_threads(run.config.threads)
    rounds = Rounds(run)
    measure(rounds.best if rounds.parts else run)
    data = run_report(run).encode()
    run.storage.put(NAME, data)
    seconds = round(time.monotonic() - start, 1)
    where = f"{run.uri.rstrip('/')}/{NAME}"
    print(f"report: {where} ({len(data) / 1e6:.1f} MB, {seconds} s); open it in a browser", file=sys.stderr, flush=True)
    return {"job": "report", "run": run.uri, "report": where, "bytes": len(data), "seconds": seconds}


if __name__ == "__main__":
    parser = Parser(prog="python -m jobs.report", description=__doc__)
    parser.add_argument("--run", required=True, type=filled, help="the run: a folder or s3://bucket/prefix")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    sys.exit(guard(lambda: report(arguments.run)))
