"""Make a film of an agent in the game or in its dream: `python -m jobs.watch --run URI [--in real|dream|both]`.

`both` shows the dream next to the real game, which tells whether C learned to play or to exploit the dream. Films of an
agent that comes with the project, or of one from a file, need no run: `python -m jobs.watch --agent car-racing`.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from jobs.display import Display
from jobs.parser import Parser, add_source, source_of
from jobs.runner import destination, guard
from wm.agents.trained import Trained
from wm.errors import UserError
from wm.pool import Progress, set_threads
from wm.runs.storage import open_storage
from wm.training.tensorboard import picture_file
from wm.visuals.film import SUFFIXES, encoded, films, side_by_side
from wm.visuals.replay import Scene, dreamt, real

KEPT = 4
PER_SECOND = 25  # pictures; showing every second step, a game with 50 steps per second plays at normal speed


def watch(
    agent: Trained, where: str, seed: int, steps: int, every: int, tau: float | None, suffix: str
) -> tuple[bytes, list[np.ndarray]]:
    """The film of one episode: a test episode of the unmodified game, a dream, or both side by side.

    Also returns one of `KEPT` pictures in half the size, for TensorBoard.
    """
    small: list[np.ndarray] = []
    with Display(10.0, 2 if where == "both" else 1) as display:

        def with_progress(name: str, scenes: Iterator[Scene], total: int) -> Iterator[Scene]:
            for scene in scenes:
                display.tell(Progress(name, scene.step, steps or total, "steps", {"score": scene.score}))
                yield scene

        def keep(pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
            for number, picture in enumerate(pictures):
                if number % KEPT == 0:
                    small.append(cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
                yield picture

        game = with_progress("watch", real(agent, seed, steps, every), agent.game.max_steps)
        dream = with_progress("dream", dreamt(agent, seed, steps, every, tau), agent.game.max_steps)
        if where == "real":
            pictures = films(game, 3 if agent.memory else 1)
        else:
            pictures = films(dream, 0) if where == "dream" else side_by_side(dream, game)
        return encoded(keep(pictures), suffix, PER_SECOND), small


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    check(arguments)
    run, agent = source_of(arguments)
    set_threads(agent.config.threads)
    seed = agent.config.score.seed if arguments.seed is None else arguments.seed
    name = arguments.to or f"{arguments.where}-{seed}.mp4"
    suffix = name.rpartition(".")[2].lower()
    if suffix not in SUFFIXES:
        raise UserError(f"--to must end in .{', .'.join(SUFFIXES)}, got {name}")
    storage, key = destination(arguments.to, run.storage if run else open_storage("runs"), f"films/{name}")
    data, small = watch(agent, arguments.where, seed, arguments.steps, arguments.every, arguments.tau, suffix)
    storage.put(key, data)
    if run:
        shown = (encoded(small, "gif", PER_SECOND / KEPT), *small[0].shape[1::-1])
        label = f"{arguments.where}-{seed}"
        run.storage.put(f"films/events.out.tfevents.0.{label}", picture_file({f"film/{label}": shown}))
    film = f"{storage.uri.rstrip('/')}/{key}"
    print(f"film: {film} ({len(data) / 1e6:.1f} MB)", file=sys.stderr, flush=True)
    return {
        "job": "watch",
        "run": run.uri if run else None,
        "film": film,
        "bytes": len(data),
        "in": arguments.where,
        "seed": seed,
    }


def check(arguments: argparse.Namespace) -> None:
    if arguments.seed is not None and not 0 <= arguments.seed < 2**29:
        raise UserError(f"--seed must be in [0, {2**29 - 1}], got {arguments.seed}")
    if arguments.steps < 0 or arguments.every < 1:
        raise UserError("--steps must be 0 or more (0 is the whole episode) and --every 1 or more")
    if arguments.tau is not None and not arguments.tau > 0:
        raise UserError(f"--tau must be above 0, got {arguments.tau}")
    if arguments.tau is not None and arguments.where == "real":
        raise UserError("--tau is the dream's temperature: add --in dream or --in both")


if __name__ == "__main__":
    parser = Parser(prog="python -m jobs.watch", description=__doc__)
    add_source(parser)
    parser.add_argument("--in", dest="where", choices=("real", "dream", "both"), default="real", help="default: real")
    parser.add_argument("--seed", type=int, help="number of the test episode or dream; default: the first scored one")
    parser.add_argument("--steps", type=int, default=0, help="maximum steps; 0 plays the whole episode")
    parser.add_argument("--every", type=int, default=2, help="show every n-th step (default 2)")
    parser.add_argument("--tau", type=float, help="temperature of the dream; default: --evolve.tau of the run")
    parser.add_argument(
        "--to", help="a file: .mp4, .webp or .gif; default: films/ in the run, or in runs/ for an --agent"
    )
    arguments = parser.parse_args()
    sys.exit(guard(lambda: job(arguments)))
