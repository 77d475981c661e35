"""Score C on unseen episodes of the unmodified game: `python -m jobs.score --run URI`.

An agent that comes with the project, or one from a file, needs no run:
`python -m jobs.score --agent car-racing --episodes 1000`.
"""

import sys
from dataclasses import replace

from jobs.command_line import value_of, without
from jobs.parser import ALLOW_GAME
from jobs.runner import exit_on_user_error, stage_job
from wm.agents.files import load_agent
from wm.agents.trained import Trained
from wm.config.schema import Score
from wm.stages.score import score, score_agent

FLAGS = {
    "agent FILE": "Score this agent instead of the run's: one that comes with the project, or a file.",
    "allow-game": f"{ALLOW_GAME[0].upper()}{ALLOW_GAME[1:]}.",
}


@exit_on_user_error
def prepare(words: list[str]) -> tuple[Trained | None, list[str]]:
    """Return the agent of --agent, if any, and the other words. Its score is kept in a run, so that it can resume."""
    agent = value_of(words, "--agent")
    if agent is None:
        return None, words
    allow_game, words = "--allow-game" in words, [word for word in words if word != "--allow-game"]
    trained, words = load_agent(agent, allow_game), without(words, "--agent")
    if value_of(words, "--run") is None:
        words += ["--run", f"runs/agent-{trained.digest[:12]}"]
    return trained, words


if __name__ == "__main__":
    trained, words = prepare(sys.argv[1:])
    stage_job(
        "score",
        __doc__,
        lambda run, pool: [score_agent(trained, run, pool) if trained else score(run, pool)],
        fallback=replace(trained.config, score=Score()) if trained else None,
        words=words,
        more=FLAGS,
    )
