"""The stages of the method in the paper's order (Ha & Schmidhuber, 2018, section 3), with all facts about each.

A stage, its job (`python -m jobs.NAME`), its folder in a run and its section of the config share one name.
"""

from collections.abc import Callable
from dataclasses import dataclass

from wm.config.schema import Config
from wm.runs import disk_space


@dataclass(frozen=True)
class StageInfo:
    name: str
    function: str  # module:name of the function that does it
    extent: str  # flag of the config field with its extent
    unit: str  # what the extent counts
    bytes: Callable[[Config], float]  # estimated disk space
    made_of: Callable[[Config], str | None] = lambda config: None  # the stage whose digest is part of its path
    reads: str | None = None  # an input that decides its content and is not part of its path
    sections: tuple[str, ...] = ()  # other config sections that affect its content
    incremental: bool = True  # whether existing files reduce the space needed; checkpoints replace each other


_STAGES = (
    # Collect rollouts in the real game with random actions or with an earlier agent.
    StageInfo("collect", "wm.stages.collect:collect", "collect.episodes", "episodes", disk_space.collect),
    # V learns to encode frames as z.
    StageInfo(
        "vision",
        "wm.stages.vision:train_vision",
        "vision.steps",
        "steps",
        disk_space.vision,
        sections=("collect",),
        incremental=False,
    ),
    # V encodes all frames.
    StageInfo(
        "latents",
        "wm.stages.latents:encode_rollouts",
        "collect.episodes",
        "episodes",
        disk_space.latents,
        made_of=lambda config: "vision",
        reads="collect",
    ),
    # M learns to predict the next z.
    StageInfo(
        "memory",
        "wm.stages.memory:train_memory",
        "memory.steps",
        "steps",
        disk_space.memory,
        made_of=lambda config: "vision",
        reads="latents",
        incremental=False,
    ),
    # C evolves in the real game or in the dream.
    StageInfo(
        "evolve",
        "wm.stages.evolve:evolve",
        "evolve.generations",
        "generations",
        disk_space.evolve,
        made_of=lambda config: "memory" if config.uses_memory else "vision",
        sections=("controller",),
        incremental=False,
    ),
    # C is scored on unseen episodes of the unmodified game.
    StageInfo(
        "score",
        "wm.stages.score:score",
        "score.episodes",
        "episodes",
        disk_space.score,
        made_of=lambda config: "evolve",
    ),
)
STAGES: dict[str, StageInfo] = {stage.name: stage for stage in _STAGES}


def extent_of(config: Config, name: str) -> int:
    """The extent of this stage in the config."""
    section, _, field = STAGES[name].extent.partition(".")
    return int(getattr(getattr(config, section), field))
