"""A page to play on inside an agent's dream, in any browser: `python -m jobs.play --agent car-racing`.

One HTML file with the weights in it: no server, no network. Also of a run, `--run URI`, or of an exported agent,
`--agent FILE.safetensors`.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from jobs.manners import guard
from wm.mistakes import Mistake
from wm.place import Place, at
from wm.play.page import play_page
from wm.pool import settle
from wm.run import must_open
from wm.so_far import agent_so_far
from wm.trained import load_trained

NAME = "play.html"


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    start = time.monotonic()
    if arguments.to is not None and not arguments.to.endswith(".html"):
        raise Mistake(f"--to {arguments.to}: must end in .html")
    run = must_open(arguments.run) if arguments.run else None
    agent = agent_so_far(run) if run else load_trained(arguments.agent)
    settle(agent.config.threads)
    default = NAME if run else f"play-{Path(arguments.agent).stem}.html"
    place, key = _goal(run.place if run else at("runs"), arguments.to, default)
    data = play_page(agent).encode()
    place.put(key, data)
    page, seconds = f"{place.uri.rstrip('/')}/{key}", round(time.monotonic() - start, 1)
    print(f"page: {page} ({len(data) / 1e6:.1f} MB, {seconds} s); open it in a browser", file=sys.stderr, flush=True)
    return {"job": "play", "run": run.uri if run else None, "page": page, "bytes": len(data), "seconds": seconds}


def _goal(place: Place, to: str | None, default: str) -> tuple[Place, str]:
    """Into the run, or where the user wants it."""
    if to is None:
        return place, default
    path = Path(to)
    if not path.parent.is_dir():
        raise Mistake(f"--to {to}: folder {path.parent} does not exist")
    return at(str(path.parent.resolve())), path.name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m jobs.play", description=__doc__)
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--run", help="the run: a folder or s3://bucket/prefix")
    whose.add_argument("--agent", help="an agent: car-racing, doom, or a FILE.safetensors that jobs.export wrote")
    parser.add_argument("--to", help="the file, ending in .html; default: play.html in the run, or in runs/")
    arguments = parser.parse_args()
    sys.exit(guard(lambda: job(arguments)))
