"""Estimates of the bytes that each stage writes; `wm/runs/disk_check.py` compares them with the free space."""

import torch

from wm.config.fields import of_kind
from wm.config.schema import Config
from wm.envs import FRAME, load
from wm.models.build import controller_of, new_memory, new_vision
from wm.runs.checkpoints import KEPT

COMPRESSION = {"car-racing": 0.08, "doom": 0.27}  # size of a frame in a shard, relative to its raw pixels
UNKNOWN_COMPRESSION = 0.5  # for other games
LATENT_BYTES = 8.0  # per dimension of z: mu and logvar, which hardly compress
WEIGHT_BYTES = 4.0
EPISODE_BYTES = 200.0  # of a score's record


def frames_of(config: Config) -> int:
    """Estimated number of frames in the rollouts: random episodes may end early; those of agents count as whole."""
    game, section = load(config.game), config.collect
    lasts = game.max_steps
    if not section.agent:
        lasts = game.random_steps or lasts
        if section.patience and game.random_rewards:
            lasts = min(lasts, game.random_rewards + section.patience)
    return section.episodes * min(section.steps, lasts)


def collect(config: Config) -> float:
    frame = FRAME[0] * FRAME[1] * FRAME[2] * COMPRESSION.get(config.game, UNKNOWN_COMPRESSION)
    return frames_of(config) * frame


def latents(config: Config) -> float:
    return frames_of(config) * LATENT_BYTES * config.vision.z * (1 + config.latents.mirrored)


def vision(config: Config) -> float:
    with torch.device("meta"):  # shapes only
        return _training(new_vision(config.vision.kind, config.vision.z))


def memory(config: Config) -> float:
    with torch.device("meta"):
        return _training(new_memory(of_kind(config, "bits"), config.vision.z))


def _training(model: torch.nn.Module) -> float:
    """Checkpoints of the weights and Adam's two moments (one more than KEPT during a write), and the best weights."""
    numbers = sum(parameter.numel() for parameter in model.parameters())
    return WEIGHT_BYTES * numbers * (3 * (KEPT + 1) + 3)


def evolve(config: Config) -> float:
    """Checkpoints of CMA-ES: the covariance and its decomposition in float64."""
    size, section = controller_of(config).size, config.evolve
    matrices = 2 * size**2 if section.covariance == "full" else 2 * size
    means = section.generations // section.validate_every + 1
    return 8.0 * (matrices * (KEPT + 1) + means * size) + 400.0 * section.generations


def score(config: Config) -> float:
    return EPISODE_BYTES * config.score.episodes
