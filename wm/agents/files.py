"""Agent files: V, M, C, first frames, the config and the card.

NAME.safetensors holds everything needed to play. V's decoder, needed only for pictures, is in NAME-decoder.safetensors.
Weights may be stored in half precision. Computation uses float32 either way, so the loaded file is the agent that was
scored.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm.agents.trained import Trained
from wm.config import fields
from wm.config.schema import FORMAT, Config
from wm.dream.starts import Starts
from wm.errors import UserError
from wm.models.build import models_of, new_memory, new_vision
from wm.runs.checkpoints import pack, unpack
from wm.runs.storage import sha256

SHIPPED = Path(__file__).parent  # agents that come with the project
STARTS = 64  # first frames in the file
NOT_OF_AN_AGENT = ("rounds", "polish", "workers")  # sections of the config


def export_agent(trained: Trained, half: bool) -> tuple[bytes, bytes | None]:
    """(the agent, V's decoder) as files."""

    def stored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.half() if half else tensor for name, tensor in tensors.items()}

    decoder = {id(parameter) for parameter in trained.vision.decoder()}
    weights = trained.vision.state_dict(keep_vars=True)
    vision = {f"vision.{name}": tensor for name, tensor in weights.items()}
    memory = trained.memory.state_dict() if trained.memory else {}
    tensors = stored({name: tensor for name, tensor in vision.items() if id(tensor) not in decoder})
    tensors |= stored({f"memory.{name}": tensor for name, tensor in memory.items()})
    tensors["theta"] = torch.from_numpy(trained.theta)  # too small for half precision to matter
    if trained.starts is not None:
        tensors["starts.mu"] = torch.from_numpy(trained.starts.mu[:STARTS])
        tensors["starts.sigma"] = torch.from_numpy(trained.starts.sigma[:STARTS])
    info = {"format": FORMAT, "config": _agent_config(trained.config), "card": trained.card}
    decoding = {name: tensor for name, tensor in vision.items() if id(tensor) in decoder}
    return pack(tensors, info), pack(stored(decoding), {}) if trained.decodes else None


def _agent_config(config: Config) -> dict[str, Any]:
    """The config without references to other runs and without sections that concern only a run."""
    alone = dataclasses.replace(
        config,
        collect=dataclasses.replace(config.collect, agent="", curiosity=0.0),
        vision=dataclasses.replace(config.vision, init="", frozen=False),
        memory=dataclasses.replace(config.memory, init=""),
        evolve=dataclasses.replace(config.evolve, init="", init_sigma=0.0, refit=False, components=0),
    )
    return {name: value for name, value in fields.to_dict(alone).items() if name not in NOT_OF_AN_AGENT}


def load_agent(name: str) -> Trained:
    """The agent with this name that comes with the project, or the one in this file."""
    path = Path(name) if name.endswith(".safetensors") else SHIPPED / f"{name}.safetensors"
    try:
        data = path.read_bytes()
    except OSError:
        known = sorted(file.stem for file in SHIPPED.glob("*.safetensors") if not file.stem.endswith("-decoder"))
        raise UserError(
            f"no agent {name}: use {' or '.join(known) or '(none comes with this version)'}, or a FILE.safetensors"
            " written by jobs.export"
        ) from None
    try:
        tensors, info = unpack(data)
        if info["format"] != FORMAT:
            raise UserError(f"{path} has format {info['format']}, this version reads {FORMAT}: export it again")
        config = fields.from_dict(info["config"], Config)
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not an agent file: export it again with jobs.export") from None
    except UserError:
        raise
    except Exception as error:  # safetensors has its own exception for incomplete files
        raise UserError(f"can't read {path} ({error}): export it again with jobs.export") from None
    decoder_path = path.with_name(f"{path.stem}-decoder.safetensors")
    decoder = unpack(decoder_path.read_bytes())[0] if decoder_path.exists() else {}
    vision = new_vision(config.vision.kind, config.vision.z)
    vision.load_state_dict(_under("vision.", tensors | decoder), strict=bool(decoder))
    memory = None
    if weights := _under("memory.", tensors):
        memory = new_memory(fields.of_kind(config, "bits"), config.vision.z)
        memory.load_state_dict(weights)
    starts = None
    if "starts.mu" in tensors:
        mu, sigma = tensors["starts.mu"].numpy(), tensors["starts.sigma"].numpy()
        starts = Starts(mu, 2 * np.log(sigma))
    return Trained(
        config,
        models_of(config, vision.eval(), memory.eval() if memory else None),
        tensors["theta"].numpy(),
        starts,
        info["card"],
        "agent",
        sha256(data),
        decodes=bool(decoder),
    )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x.float() for name, x in tensors.items() if name.startswith(prefix)}
