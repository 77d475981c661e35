"""Evolve C with CMA-ES: `python -m jobs.evolve --run URI`."""

from jobs.runner import stage_job

if __name__ == "__main__":
    stage_job("evolve", __doc__)
