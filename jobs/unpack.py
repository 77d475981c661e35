"""Make a run from an agent file, to train it further: `python -m jobs.unpack --agent NAME --run URI`.

NAME is an agent that comes with the project, or a FILE.safetensors written by jobs.export. V, M and C become complete
stages of the run. Other runs use them with `--base URI`, `--evolve.init URI` or `--collect.agent URI`.
"""

import sys
from typing import Any

from jobs.parser import ALLOW_GAME, Parser, filled
from jobs.runner import guard
from wm.agents.files import load_agent
from wm.agents.unpack import unpack


def job(agent: str, uri: str, allow_game: bool) -> dict[str, Any]:
    trained = load_agent(agent, allow_game)
    run = unpack(trained, uri)
    if not trained.decodes:
        print("the file has no decoder for V, so reconstructions and dreams can't be shown", file=sys.stderr)
    print(
        "train C further: python -m jobs.evolve --run ANOTHER"
        f" --base {run.uri} --evolve.init {run.uri} --evolve.init-sigma 0.02",
        file=sys.stderr,
    )
    return {"job": "unpack", "run": run.uri, "agent": trained.digest, "env_steps": trained.card.get("env_steps", 0)}


if __name__ == "__main__":
    parser = Parser(prog="python -m jobs.unpack", description=__doc__)
    parser.add_argument("--allow-game", action="store_true", help=ALLOW_GAME)
    parser.add_argument("--agent", required=True, type=filled, help="the name of an agent, or a FILE.safetensors")
    parser.add_argument("--run", required=True, type=filled, help="the run to make: a folder or s3://bucket/prefix")
    arguments = parser.parse_args()
    sys.exit(guard(lambda: job(arguments.agent, arguments.run, arguments.allow_game)))
