"""Evolve C with CMA-ES: `python -m jobs.evolve --run URI`."""

from jobs.runner import stage_job
from wm.stages.evolve import evolve

if __name__ == "__main__":
    stage_job("evolve", __doc__, lambda config, run, pool: [evolve(config, run, pool)], section="evolve")
