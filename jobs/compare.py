"""Compare runs in one HTML file: `python -m jobs.compare --runs URI URI ...`."""

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

from jobs.parser import Parser
from jobs.runner import guard
from wm.pool import set_threads
from wm.report.compare_data import fresh_drives, groups
from wm.report.compare_page import comparison
from wm.runs.run import open_existing
from wm.runs.storage import open_storage, to_json

PAGE, NUMBERS = "compare.html", "compare.json"


def compare(uris: Sequence[str], to: str) -> dict[str, Any]:
    """Write the page and its numbers to the folder or bucket `to`; the runs do not change."""
    start, runs = time.monotonic(), [open_existing(uri) for uri in uris]
    set_threads(runs[0].config.threads)
    found = groups(runs)
    drives = fresh_drives(found[0].first)
    numbers = [group.numbers(drives) for group in found]
    rows = [
        {"name": group.name, "runs": [one.run.uri for one in group.runs], "measures": measured, "curve": group.curve()}
        for group, measured in zip(found, numbers, strict=True)
    ]
    storage = open_storage(to)
    storage.put(PAGE, comparison(found, numbers).encode())
    storage.put(NUMBERS, to_json({"groups": rows}))
    where, seconds = f"{storage.uri.rstrip('/')}/{PAGE}", round(time.monotonic() - start, 1)
    print(f"compared: {where} ({seconds} s); open it in a browser", file=sys.stderr, flush=True)
    return {"job": "compare", "page": where, "seconds": seconds, "groups": rows}


if __name__ == "__main__":
    parser = Parser(prog="python -m jobs.compare", description=__doc__)
    parser.add_argument("--runs", required=True, nargs="+", help="runs made on the same rollouts")
    parser.add_argument(
        "--to", default="runs", help="folder or bucket for compare.html and compare.json (default: runs)"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    sys.exit(guard(lambda: compare(arguments.runs, arguments.to)))
