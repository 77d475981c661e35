"""Train V on the frames of the rollouts: `python -m jobs.vision --run URI`."""

from jobs.runner import stage_job

if __name__ == "__main__":
    stage_job("vision", __doc__)
