"""Score C on unseen episodes of the unmodified game: `python -m jobs.score --run URI`.

Or an agent that comes with the project or lies in a file: `python -m jobs.score --agent car-racing --episodes 1000`.
"""

import sys
from dataclasses import replace

from jobs.command_line import value_of, without
from jobs.manners import exit_on_mistake, stage_job
from wm.config import Score
from wm.stages.score import score, score_of
from wm.trained import Trained, load_trained


@exit_on_mistake
def prepare(agent: str) -> Trained:
    """The agent; and a run to keep what it played, so that this goes on, too, where it was stopped."""
    trained = load_trained(agent)
    words = without(sys.argv[1:], "--agent")
    if value_of(words, "--run") is None:
        words += ["--run", f"runs/agent-{trained.digest[:12]}"]
    sys.argv[1:] = words
    return trained


if __name__ == "__main__":
    agent = value_of(sys.argv[1:], "--agent")
    trained = prepare(agent) if agent else None
    stage_job(
        "score",
        __doc__,
        lambda config, run, pool: [score_of(trained, config, run, pool) if trained else score(config, run, pool)],
        section="score",
        fallback=replace(trained.config, score=Score()) if trained else None,
    )
