"""Make a web page to play inside an agent's dream: `python -m jobs.play --agent car-racing`.

One HTML file that contains the weights; it needs no server and no network. `--run URI` uses the agent of a run,
`--agent FILE.safetensors` an exported one.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from jobs.runner import destination, guard
from wm.agents.files import load_agent
from wm.agents.trained import best_so_far
from wm.errors import UserError
from wm.play.page import play_page
from wm.pool import set_threads
from wm.runs.run import open_existing
from wm.runs.storage import open_storage

NAME = "play.html"


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    start = time.monotonic()
    if arguments.to is not None and not arguments.to.endswith(".html"):
        raise UserError(f"--to must end in .html, got {arguments.to}")
    run = open_existing(arguments.run) if arguments.run else None
    agent = best_so_far(run) if run else load_agent(arguments.agent)
    set_threads(agent.config.threads)
    default = NAME if run else f"play-{Path(arguments.agent).stem}.html"
    storage, key = destination(arguments.to, run.storage if run else open_storage("runs"), default)
    data = play_page(agent).encode()
    storage.put(key, data)
    page, seconds = f"{storage.uri.rstrip('/')}/{key}", round(time.monotonic() - start, 1)
    print(f"page: {page} ({len(data) / 1e6:.1f} MB, {seconds} s); open it in a browser", file=sys.stderr, flush=True)
    return {"job": "play", "run": run.uri if run else None, "page": page, "bytes": len(data), "seconds": seconds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m jobs.play", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", help="the run: a folder or s3://bucket/prefix")
    source.add_argument("--agent", help="an agent that comes with the project, or a file written by jobs.export")
    parser.add_argument(
        "--to", help="a file ending in .html; default: play.html in the run, or in runs/ for an --agent"
    )
    arguments = parser.parse_args()
    sys.exit(guard(lambda: job(arguments)))
