"""Command lines of jobs without a config: errors in one line, and the choice of a run or an agent."""

import argparse
import sys
from typing import Any, NoReturn

from wm.agents.files import load_agent
from wm.agents.trained import Trained, best_so_far
from wm.runs.run import Run, open_existing

ALLOW_GAME = "allow an agent file to name a game of gymnasium, whose code then runs"


class Parser(argparse.ArgumentParser):
    """Prints an error as one line instead of the usage."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())
        print(f"{line}; --help shows all flags", file=sys.stderr, flush=True)
        sys.exit(2)


def filled(value: str) -> str:
    """A value that is not empty, such as that of an unset shell variable."""
    if not value.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return value


def add_source(parser: argparse.ArgumentParser) -> None:
    source: Any = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=filled, help="the run: a folder or s3://bucket/prefix")
    source.add_argument(
        "--agent", type=filled, help="an agent that comes with the project, or a file written by jobs.export"
    )
    parser.add_argument("--allow-game", action="store_true", help=ALLOW_GAME)


def source_of(arguments: argparse.Namespace) -> tuple[Run | None, Trained]:
    """The run, if one is named, and its agent or the one of the file."""
    run = open_existing(arguments.run) if arguments.run else None
    return run, best_so_far(run) if run else load_agent(arguments.agent, arguments.allow_game)
