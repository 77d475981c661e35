"""Encode all frames with V: `python -m jobs.latents --run URI`."""

from jobs.runner import stage_job

if __name__ == "__main__":
    stage_job("latents", __doc__)
