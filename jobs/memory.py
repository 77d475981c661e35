"""Train M on the latents: `python -m jobs.train_memory --run URI`."""

from jobs.runner import stage_job
from wm.stages.memory import train_memory

if __name__ == "__main__":
    stage_job("train_memory", __doc__, lambda config, run, pool: [train_memory(config, run, pool)], section="memory")
