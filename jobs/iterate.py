"""Train in rounds on the agent's own data: `python -m jobs.iterate PRESET --run URI --rounds N`.

Rounds after the first change fields by flags such as --rounds.evolve.generations 30, polishing by flags such as
--polish.evolve.generations 15.
"""

from jobs.runner import stage_job
from wm.config.schema import Config
from wm.experiments.rounds import PREPARING, iterate


def stages_of(config: Config) -> int:
    """At most: the target may be reached earlier."""
    return (config.rounds.count + (config.polish.generations > 0)) * len(PREPARING) + 1


if __name__ == "__main__":
    stage_job("iterate", __doc__, iterate, section="rounds", count=stages_of)
