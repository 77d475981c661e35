"""Evolve C in the dream at several temperatures: `python -m jobs.sweep --run URI --tau 0.1 0.5 1.0 1.15 1.3 --seeds 3`.

Each (tau, seed) is a run in URI/sweep that uses V and M of the run at URI. The resulting table has the scores in the
dream and in the real game for each tau, as in the paper; it is written to URI/sweep as Markdown, CSV, JSON and SVG.
"""

import argparse
import signal
import sys
import time
from dataclasses import asdict
from typing import Any

from jobs.command_line import parse
from jobs.display import Display
from jobs.parser import Parser
from jobs.runner import guard, interrupt
from jobs.tune import carry_out
from wm.errors import Failure, UserError
from wm.experiments.sweep import FOLDER, Sweep, trials_of
from wm.pool import Progress
from wm.report.temperature import comma_separated, data, markdown, plot, rows_of
from wm.runs.lease import hold
from wm.runs.reader import sealed
from wm.runs.run import open_existing
from wm.runs.storage import open_storage

FLAGS = {
    "tau T [T ...]": "Temperatures (default: those of the paper, 0.1 0.5 1.0 1.15 1.3).",
    "seeds K": "Evolutions for each temperature (default 1).",
    "cpus-each N": "CPUs of each trial (default 1); as many trials as fit on the cluster run in parallel.",
}


def sweep(options: argparse.Namespace, words: list[str]) -> dict[str, Any]:
    signal.signal(signal.SIGTERM, interrupt)
    _, run_options, config = parse("sweep", __doc__ or "", words, more=FLAGS)
    base = open_existing(run_options.run)
    trials_of(options.tau, options.seeds)
    if options.cpus_each < 1:
        raise UserError(f"--cpus-each must be 1 or more, got {options.cpus_each}")
    search = Sweep(base, config, options.tau, options.seeds)
    start, storage = time.monotonic(), open_storage(f"{base.uri}/{FOLDER}")
    with Display(config.workers.log_seconds, 2 * len(search.trials)) as display:  # noqa: SIM117
        with hold(storage, run_options.take_over) as lease:

            def tell(progress: Progress) -> None:
                lease.check()
                display.tell(progress)

            if search.missing:
                gpus = 1 if config.evolve.device == "cuda" else 0
                carry_out(search, search.place, run_options, options.cpus_each, gpus, tell)
            found = search.results()
            rows = rows_of(found)
            table = markdown(rows, config.game)
            storage.put("table.md", table.encode())
            storage.put("table.csv", comma_separated(found).encode())
            storage.put("table.json", sealed(data(rows, config.game), "table.json"))
            storage.put("table.svg", plot(rows, config.game).encode())
    print(f"{table}\n{storage.uri}/table.md, .csv, .json, .svg; tensorboard --logdir {storage.uri}", file=sys.stderr)
    if search.failures:
        raise Failure(f"{len(search.failures)} trials failed; the first: {search.failures[0]}")
    return {
        "job": "sweep",
        "run": base.uri,
        "seconds": round(time.monotonic() - start, 1),
        "made": [trial.name for trial in search.missing],
        "trials": [asdict(one) for one in found],
    }


if __name__ == "__main__":
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--tau", type=float, nargs="+", default=[0.1, 0.5, 1.0, 1.15, 1.3])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cpus-each", type=int, default=1)
    options, words = parser.parse_known_args()
    sys.exit(guard(lambda: sweep(options, words)))
