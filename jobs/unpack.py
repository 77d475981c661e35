"""Make a run of an agent's file, to go on from: `python -m jobs.unpack --agent NAME --run URI`.

NAME is an agent that comes with the project, or a FILE.safetensors that jobs.export wrote. Its V, M and C are complete
in the run; other runs use them by `--base URI`, `--evolve.init URI`, `--collect.agent URI`.
"""

import argparse
import sys
from typing import Any

from jobs.runner import guard
from wm.agents.trained import load_trained
from wm.agents.unpack import unpack


def job(agent: str, uri: str) -> dict[str, Any]:
    trained = load_trained(agent)
    run = unpack(trained, uri)
    if not trained.decodes:
        print("V's decoder is not beside the agent: V can see, but not show what it sees", file=sys.stderr)
    print(
        "evolve C further: python -m jobs.evolve --run ANOTHER"
        f" --base {run.uri} --evolve.init {run.uri} --evolve.init-sigma 0.02",
        file=sys.stderr,
    )
    return {"job": "unpack", "run": run.uri, "agent": trained.digest, "env_steps": trained.card.get("env_steps", 0)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m jobs.unpack", description=__doc__)
    parser.add_argument("--agent", required=True, help="its name, or its FILE.safetensors")
    parser.add_argument("--run", required=True, help="the run to make: a folder or s3://bucket/prefix")
    arguments = parser.parse_args()
    sys.exit(guard(lambda: job(arguments.agent, arguments.run)))
