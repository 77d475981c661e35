"""TODO"""

from typing import Any

from wm.config.schema import Config
from wm.envs import load
from wm.models.controller import Controller
from wm.models.memory import MDNRNN
from wm.models.vision import VAE


def controller_of(config: Config) -> Controller:
    """The shape of C in a run with this config."""
    section = config.controller
    return Controller(
        inputs=section.inputs,
        z=config.vision.z,
        hidden=config.memory.hidden,
        actions=load(config.game).actions,
        layer=section.layer,
        bias=section.bias,
    )


SHAPE = ("hidden", "mixtures", "reward", "done", "next_action", "previous_done", "dropout")


def untrained_memory(fields: dict[str, Any], z: int) -> MDNRNN:
    """An M as the frozen fields of a config or a manifest describe it."""
    shape = {name: fields[f"memory.{name.replace('_', '-')}"] for name in SHAPE}
    return MDNRNN(z=z, actions=load(fields["game"]).actions, **shape)


def untrained_vision(kind: str, z: int) -> VAE:
    return {"vae": VAE, "vaegan": VAE}[kind](z)  # one network, trained in two ways
