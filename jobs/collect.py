"""Collect rollouts in the real game: `python -m jobs.collect PRESET --run URI`."""

from jobs.runner import stage_job

if __name__ == "__main__":
    stage_job("collect", __doc__)
