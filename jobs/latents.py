"""Encode every frame as V sees it: `python -m jobs.encode --run URI`."""

from jobs.runner import stage_job
from wm.stages.latents import encode

if __name__ == "__main__":
    stage_job("encode", __doc__, lambda config, run, pool: [encode(config, run, pool)], section="latents")
