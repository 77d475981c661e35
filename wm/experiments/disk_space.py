"""How much room a stage will need, said before it starts: hours of work that end with a full disk are nobody's wish."""

import logging
from collections.abc import Callable

import torch

from wm.config.fields import of_kind
from wm.config.schema import Config
from wm.envs import FRAME, load
from wm.errors import UserError
from wm.formatting import size
from wm.models.build import controller_of, untrained_memory, untrained_vision
from wm.pool import Progress
from wm.runs.checkpoints import KEPT
from wm.runs.storage import Storage

log = logging.getLogger(__name__)

PACKED = {"car-racing": 0.08, "doom": 0.27}  # of a frame's bytes, as shards hold them: flat colours shrink well
UNKNOWN = 0.5  # for a game that nobody has measured
LATENTS = 8.0  # bytes for each number of z: mu and logvar, which hardly shrink
WEIGHTS = 4.0  # bytes
EPISODE = 200.0  # bytes that a score's record has


class DiskSpaceCheck:
    """Looks for room whenever a stage begins, once for each."""

    def __init__(self, config: Config, storage: Storage):
        self.config, self.storage = config, storage
        self.begun: set[str] = set()

    def tell(self, progress: Progress) -> None:
        if progress.stage not in self.begun and progress.done < progress.total:
            self.begun.add(progress.stage)
            check_disk_space(self.config, self.storage, progress)


def check_disk_space(config: Config, storage: Storage, progress: Progress) -> None:
    """Say what the stage that begins needs of what there is; a Mistake if that is clearly too little."""
    estimate = ESTIMATES.get(progress.stage)
    if estimate is None:
        return
    needed, free = estimate(config) * _missing(progress), storage.free()
    if free is None:
        log.info("%s needs about %s in %s", progress.stage, size(needed), storage.uri)
        return
    log.info("%s needs about %s; %s are free in %s", progress.stage, size(needed), size(free), storage.uri)
    if needed > 2 * free:
        raise UserError(
            f"{progress.stage} needs about {size(needed)}, but {storage.uri} has room for {size(free)}:"
            " make room, or start the run somewhere else, or a smaller one"
        )
    if needed > free:
        log.warning("%s may not fit: about %s are missing", progress.stage, size(needed - free))


def _missing(progress: Progress) -> float:
    """The share that is not there yet. Checkpoints replace each other: a training that goes on needs no less."""
    return 1 - progress.done / progress.total if progress.stage in ("collect", "latents", "score") else 1.0


def frames_of(config: Config) -> int:
    """About how many frames the rollouts have: a random policy's may end early, an agent's are taken for whole."""
    game, section = load(config.game), config.collect
    lasts = game.max_steps if section.agent else game.random_steps or game.max_steps
    return section.episodes * min(section.steps, lasts)


def _collect(config: Config) -> float:
    frame = FRAME[0] * FRAME[1] * FRAME[2] * PACKED.get(config.game, UNKNOWN)
    return frames_of(config) * frame


def _latents(config: Config) -> float:
    return frames_of(config) * LATENTS * config.vision.z * (1 + config.latents.mirrored)


def _vision(config: Config) -> float:
    with torch.device("meta"):  # its shape alone
        return _training(untrained_vision(config.vision.kind, config.vision.z))


def _memory(config: Config) -> float:
    with torch.device("meta"):
        return _training(untrained_memory(of_kind(config, "bits"), config.vision.z))


def _training(model: torch.nn.Module) -> float:
    """Checkpoints of weights and of Adam's two moments, one more than are kept while it is written; the best, twice."""
    numbers = sum(parameter.numel() for parameter in model.parameters())
    return WEIGHTS * numbers * (3 * (KEPT + 1) + 3)


def _evolve(config: Config) -> float:
    """Checkpoints of CMA-ES: its covariance and what that is decomposed into, float64."""
    size, section = controller_of(config).size, config.evolve
    matrices = 2 * size**2 if section.covariance == "full" else 2 * size
    means = section.generations // section.validate_every + 1
    return 8.0 * (matrices * (KEPT + 1) + means * size) + 400.0 * section.generations


ESTIMATES: dict[str, Callable[[Config], float]] = {
    "collect": _collect,
    "vision": _vision,
    "latents": _latents,
    "memory": _memory,
    "evolve": _evolve,
    "score": lambda config: EPISODE * config.score.episodes,
}
