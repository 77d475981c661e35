"""Rounds of the agent's own data: `python -m jobs.iterate PRESET --run URI --rounds N`."""

from jobs.runner import stage_job
from wm.config.schema import Config
from wm.experiments.rounds import PREPARING, iterate


def stages_of(config: Config) -> int:
    """At most: a target may be reached before."""
    return (config.rounds.count + (config.polish.generations > 0)) * len(PREPARING) + 1


if __name__ == "__main__":
    stage_job("iterate", __doc__, iterate, section="rounds", count=stages_of)
