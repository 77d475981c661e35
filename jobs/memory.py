"""Train M on the latents: `python -m jobs.memory --run URI`."""

from jobs.runner import stage_job

if __name__ == "__main__":
    stage_job("memory", __doc__)
