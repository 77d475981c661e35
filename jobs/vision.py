"""Train V on the frames of the rollouts: `python -m jobs.train_vision --run URI`."""

from jobs.runner import stage_job
from wm.stages.vision import train_vision

if __name__ == "__main__":
    stage_job("train_vision", __doc__, lambda config, run, pool: [train_vision(config, run, pool)], section="vision")
