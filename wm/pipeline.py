"""The whole method, in the paper's order (Ha & Schmidhuber, 2018, section 3)."""

from wm.config.schema import Config
from wm.pool import Pool, Progress
from wm.runs.run import Manifest, Run
from wm.stages.collect import collect
from wm.stages.evolve import evolve
from wm.stages.latents import encode
from wm.stages.memory import train_memory
from wm.stages.score import score
from wm.stages.vision import train_vision

STAGES = (
    collect,  # look around at random in the real game
    train_vision,  # V learns to see: a frame becomes z
    encode,  # every frame as V sees it
    train_memory,  # M learns to predict the next z
    evolve,  # C learns to act, in the real game or in the dream
    score,  # and is judged on unseen episodes of the unmodified game
)


def pipeline(config: Config, run: Run, pool: Pool) -> list[Manifest]:
    """Each stage does what is missing and leaves what is there: given again, the command goes on."""
    made = []
    for stage in STAGES:
        made.append(stage(config, run, pool))
        run.tell(Progress(made[-1].stage, made[-1].extent, made[-1].extent, "in all"))
    return made
