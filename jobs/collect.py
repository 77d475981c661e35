"""Collect random rollouts in the real game: `python -m jobs.collect PRESET --run URI`."""

from jobs.runner import stage_job
from wm.stages.collect import collect

if __name__ == "__main__":
    stage_job("collect", __doc__, lambda config, run, pool: [collect(config, run, pool)], section="collect")
