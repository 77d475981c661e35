"""Train M on the latents: `python -m jobs.train_memory --run URI`."""

from jobs.manners import stage_job
from wm.stages.train_memory import train_memory

if __name__ == "__main__":
    stage_job("train_memory", __doc__, lambda config, run, pool: [train_memory(config, run, pool)], section="memory")
