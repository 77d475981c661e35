"""Rounds of the agent's own data: `python -m jobs.iterate PRESET --run URI --rounds N`."""

from jobs.manners import stage_job
from wm.rounds import PREPARING, iterate

if __name__ == "__main__":
    stage_job("iterate", __doc__, iterate, section="rounds", count=len(PREPARING) + 1)
