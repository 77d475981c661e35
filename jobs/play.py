"""Make a web page to play inside an agent's dream: `python -m jobs.play --agent car-racing`.

One HTML file that contains the weights; it needs no server and no network. `--run URI` uses the agent of a run,
`--agent FILE.safetensors` an exported one.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from jobs.parser import Parser, add_source, source_of
from jobs.runner import destination, guard
from wm.errors import UserError
from wm.play.page import play_page
from wm.pool import set_threads
from wm.runs.storage import open_storage

NAME = "play.html"


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    start = time.monotonic()
    if arguments.to is not None and not arguments.to.endswith(".html"):
        raise UserError(f"--to must end in .html, got {arguments.to}")
    run, agent = source_of(arguments)
    set_threads(agent.config.threads)
    default = NAME if run else f"play-{Path(arguments.agent).stem}.html"
    storage, key = destination(arguments.to, run.storage if run else open_storage("runs"), default)
    data = play_page(agent).encode()
    storage.put(key, data)
    page, seconds = f"{storage.uri.rstrip('/')}/{key}", round(time.monotonic() - start, 1)
    print(f"page: {page} ({len(data) / 1e6:.1f} MB, {seconds} s); open it in a browser", file=sys.stderr, flush=True)
    return {"job": "play", "run": run.uri if run else None, "page": page, "bytes": len(data), "seconds": seconds}


if __name__ == "__main__":
    parser = Parser(prog="python -m jobs.play", description=__doc__)
    add_source(parser)
    parser.add_argument(
        "--to", help="a file ending in .html; default: play.html in the run, or in runs/ for an --agent"
    )
    arguments = parser.parse_args()
    sys.exit(guard(lambda: job(arguments)))
