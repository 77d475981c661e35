"""The whole method (Ha & Schmidhuber, 2018, section 3): collect, vision, latents, memory, evolve, score.

The table of the stages, with a line on each, is `wm/runs/stages.py`.
"""

from collections.abc import Callable
from importlib import import_module

from wm.pool import Pool, Progress
from wm.runs.manifest import Manifest
from wm.runs.run import Run
from wm.runs.stages import STAGES

StageFunction = Callable[[Run, Pool], Manifest]


def stage_function(name: str) -> StageFunction:
    module, _, function = STAGES[name].function.partition(":")
    found: StageFunction = getattr(import_module(module), function)
    return found


def pipeline(run: Run, pool: Pool) -> list[Manifest]:
    """Each stage does what is missing and keeps what exists, so the same command resumes an interrupted run."""
    made = []
    for name in STAGES:
        made.append(stage_function(name)(run, pool))
        run.tell(Progress(name, made[-1].extent, made[-1].extent, "complete"))
    return made
