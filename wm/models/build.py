"""Untrained models with the sizes of a config or a manifest."""

from collections.abc import Mapping
from typing import Any

from wm.config.schema import Config
from wm.envs import load
from wm.models.agent import Models
from wm.models.controller import Controller
from wm.models.memory import MDNRNN
from wm.models.vision import VAE, Vision

MEMORY_FIELDS = ("hidden", "mixtures", "reward", "done", "next_action", "previous_done")
VISIONS = {"vae": VAE, "vaegan": VAE}  # the same network, trained with different losses


def new_vision(kind: str, z: int) -> VAE:
    return VISIONS[kind](z)


def new_memory(fields: Mapping[str, Any], z: int) -> MDNRNN:
    """`fields`: the frozen fields of a config or a manifest, by flag."""
    sizes = {name: fields[f"memory.{name.replace('_', '-')}"] for name in MEMORY_FIELDS}
    return MDNRNN(z=z, actions=load(fields["game"]).actions, **sizes)


def models_of(config: Config, vision: Vision, memory: MDNRNN | None) -> Models:
    """The agent's models, as C uses them."""
    section = config.controller
    return Models(vision, memory, controller_of(config), section.latent, section.precision)


def controller_of(config: Config) -> Controller:
    """The shape of C."""
    section = config.controller
    return Controller(
        inputs=section.inputs,
        z=config.vision.z,
        hidden=config.memory.hidden,
        outputs=2 if section.one_pedal else load(config.game).actions,
        layer=section.layer,
        bias=section.bias,
    )
