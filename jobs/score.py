"""Score C on unseen episodes of the unmodified game: `python -m jobs.score --run URI`."""

from jobs.manners import stage_job
from wm.stages.score import score

if __name__ == "__main__":
    stage_job("score", __doc__, lambda config, run, pool: [score(config, run, pool)], section="score")
