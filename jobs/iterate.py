"""Rounds of the agent's own data: `python -m jobs.iterate PRESET --run URI --rounds N`."""

import sys

from jobs.manners import stage_job
from wm.rounds import PREPARING, iterate

if __name__ == "__main__":
    sys.argv[1:] = [
        f"--rounds.count{word[8:]}" if word.partition("=")[0] == "--rounds" else word for word in sys.argv[1:]
    ]
    stage_job("iterate", __doc__, iterate, section="rounds", count=len(PREPARING) + 1)
