"""Compares the memory and threads that stages need with the machine, before anything is started or frozen.

The estimates are rough and low: they refuse what can't fit, such as a batch with some zeros too many.
"""

import contextlib
import os
import resource
from collections.abc import Callable, Iterable
from pathlib import Path

from wm.config.schema import Config
from wm.envs import FRAME, load
from wm.errors import UserError
from wm.formatting import format_bytes
from wm.models.build import controller_of

ANY_NODE = 32 * 2**40  # bytes of memory that no node of a cluster exceeds
FRAME_BYTES = FRAME[0] * FRAME[1] * FRAME[2]
ACTIVATIONS = 4.0 * 100_000  # bytes per frame: what V's layers keep for the backward pass
ENVIRONMENT = 2e6  # bytes of a game, at least
FLOAT, DOUBLE = 4.0, 8.0
TRAINED = 4.0  # weights, gradients and Adam's two moments
SHARD_BYTES = 200.0  # of an episode in a record

Needs = dict[str, float]  # flag -> bytes that grow with its value


def _collect(config: Config) -> Needs:
    section = config.collect
    frames = section.unit_episodes * float(section.steps)
    return {
        "collect.unit-episodes": frames * FRAME_BYTES + section.unit_episodes * ENVIRONMENT,
        "collect.steps": section.steps * float(FRAME_BYTES),
        "collect.episodes": section.episodes * SHARD_BYTES,
    }


def _vision(config: Config) -> Needs:
    section = config.vision
    return {"vision.batch": section.batch * (ACTIVATIONS + FRAME_BYTES), "vision.z": _z(config)}


def _z(config: Config) -> float:
    """V's layers between 1,024 features and z: two for the mean and variance, one back."""
    return TRAINED * FLOAT * 3 * 1_024 * config.vision.z


def _memory(config: Config) -> Needs:
    section, z = config.memory, config.vision.z
    step = FLOAT * (z * section.mixtures * 3 + 6 * section.hidden + 2 * z)
    weights = 4.0 * section.hidden * (section.hidden + z) + 3.0 * section.hidden * z * section.mixtures
    sequences = section.batch * float(section.sequence) * step
    larger = max(("batch", "sequence"), key=lambda name: getattr(section, name) / getattr(Config().memory, name))
    layers = max(("hidden", "mixtures"), key=lambda name: getattr(section, name) / getattr(Config().memory, name))
    return {f"memory.{larger}": sequences, f"memory.{layers}": TRAINED * FLOAT * weights}


def _evolve(config: Config) -> Needs:
    section, size = config.evolve, float(controller_of(config).size)
    matrices = 3.0 * size**2 if section.covariance == "full" and not section.components else 4.0 * size
    dream = FLOAT * (config.vision.z * config.memory.mixtures * 3 + 8 * config.memory.hidden)
    each = dream if section.where == "dream" else ENVIRONMENT
    return {
        "evolve.population": section.population * (3 * DOUBLE * size + DOUBLE * section.episodes),
        "evolve.episodes": section.episodes * (8 * DOUBLE + DOUBLE * section.population),
        "evolve.unit-episodes": min(section.unit_episodes, section.population * section.episodes) * each,
        "evolve.validation-episodes": section.validation_episodes * 4 * DOUBLE,
        "controller.layer" if config.controller.layer else "memory.hidden": DOUBLE * matrices,
    }


def _score(config: Config) -> Needs:
    section = config.score
    return {
        "score.unit-episodes": section.unit_episodes * ENVIRONMENT,
        "score.episodes": section.episodes * SHARD_BYTES,
    }


ESTIMATES: dict[str, Callable[[Config], Needs]] = {
    "collect": _collect,
    "vision": _vision,
    "latents": lambda config: {"vision.z": _z(config) / TRAINED},
    "memory": _memory,
    "evolve": _evolve,
    "score": _score,
}


def check_machine(config: Config, stages: Iterable[str], cluster: bool = False) -> None:
    """Raise a UserError for sizes and threads that are too large for this machine, or for any node of a cluster."""
    load(config.game)  # its number of actions is part of C's size
    available = ANY_NODE if cluster else memory_of_this_machine()
    for stage in stages:
        for flag, needed in ESTIMATES[stage](config).items():
            if needed > available:
                where = "no node of a cluster has" if cluster else f"this machine has {format_bytes(available)}"
                raise UserError(
                    f"--{flag} {_value(config, flag)} needs about {format_bytes(needed)} of memory, but {where}"
                    f"{' that much' if cluster else ''}: use a smaller value"
                )
    most = max(16, 4 * (os.cpu_count() or 1))
    for flag in ("threads", "vision.threads", "memory.threads"):
        if not cluster and _value(config, flag) > most and (flag == "threads" or flag.partition(".")[0] in stages):
            raise UserError(
                f"--{flag} {_value(config, flag)} is too much for this machine with {os.cpu_count()} CPUs: use at most"
                f" {most}"
            )


def _value(config: Config, flag: str) -> int:
    section, _, name = flag.rpartition(".")
    return int(getattr(getattr(config, section) if section else config, name.replace("-", "_")))


def memory_of_this_machine() -> float:
    """Bytes that this process may use: of the machine, of its container, and of its own limit."""
    found = [float(ANY_NODE)]
    with contextlib.suppress(ValueError, OSError):
        found.append(float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(ValueError, OSError):  # "max" is no number
        found.append(float(Path("/sys/fs/cgroup/memory.max").read_text()))
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        found.append(float(limit))
    return min(found)
