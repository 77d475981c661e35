"""Evolve C with CMA-ES: `python -m jobs.evolve --run URI`.

Raise --generations to evolve further, or evolve in M's dream: `python -m jobs.evolve --run URI --in dream`.
"""

from jobs.runner import stage_job

if __name__ == "__main__":
    stage_job("evolve", __doc__)
