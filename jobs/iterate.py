"""Train in rounds on the agent's own data: `python -m jobs.iterate PRESET --run URI --rounds N`.

Flags such as --rounds.evolve.generations 30 change fields in all rounds after the first.
"""

from jobs.runner import stage_job
from wm.config.schema import Config
from wm.experiments.rounds import PREPARING, iterate


def stages_of(config: Config) -> int:
    """An upper bound, since rounds may end early."""
    return config.rounds.count * len(PREPARING) + 1


if __name__ == "__main__":
    stage_job("iterate", __doc__, iterate, section="rounds", count=stages_of)
