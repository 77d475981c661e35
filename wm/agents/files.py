"""Agent files: V, M, C, first frames, the config and the card.

NAME.safetensors holds everything needed to play. V's decoder, needed only for pictures, is in NAME-decoder.safetensors.
Weights may be stored in half precision. Computation uses float32 either way, so the loaded file is the agent that was
scored.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm.agents.card_schema import CARD
from wm.agents.trained import Trained
from wm.config import fields
from wm.config.schema import FORMAT, Config, Memory, Vision
from wm.dream.starts import Starts
from wm.envs import GAMES
from wm.errors import UserError
from wm.models.build import controller_of, models_of, new_memory, new_vision
from wm.runs.reader import Damaged, check_format, check_tensors, checked, pack, unpack, verify_seal
from wm.runs.storage import sha256
from wm.schemas import HASH, Wrong, mapping, one_of, optional, plain, record, shown

SHIPPED = Path(__file__).parent  # agents that come with the project
STARTS = 64  # first frames in the file
NOT_OF_AN_AGENT = ("rounds", "workers")  # sections of the config
CURE = "get the file again, or export it again with jobs.export"

HEADER = record({"format": one_of(FORMAT), "config": mapping(plain), "card": CARD, "decoder": optional(HASH)})


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
    decoding = None
    if trained.decodes:
        decoding = pack(stored({name: tensor for name, tensor in vision.items() if id(tensor) in decoder}), {}, True)
    info = {
        "format": FORMAT,
        "config": _agent_config(trained.config),
        "card": trained.card,
        "decoder": sha256(decoding) if decoding else None,
    }
    return pack(tensors, info, True), decoding


def _agent_config(config: Config) -> dict[str, Any]:
    """The config without references to other runs and without what concerns only a run or a machine."""
    alone = dataclasses.replace(
        config,
        collect=dataclasses.replace(config.collect, agent="", curiosity=0.0),
        vision=dataclasses.replace(config.vision, init="", frozen=False),
        memory=dataclasses.replace(config.memory, init=""),
        evolve=dataclasses.replace(config.evolve, init="", init_sigma=0.0, refit=False, components=0),
    )
    return {
        name: value for name, value in fields.to_dict(without_threads(alone)).items() if name not in NOT_OF_AN_AGENT
    }


def without_threads(config: Config) -> Config:
    """The config with the default numbers of threads: a file does not decide how many this machine starts."""
    return dataclasses.replace(
        config,
        threads=Config().threads,
        vision=dataclasses.replace(config.vision, threads=Vision().threads),
        memory=dataclasses.replace(config.memory, threads=Memory().threads),
    )


def load_agent(name: str, allow_game: bool = False) -> Trained:
    """The agent with this name that comes with the project, or the one in this file.

    A file may come from anybody. It is refused if its game is none of this project's, since a game of gymnasium is code
    that would run, unless `allow_game` is set.
    """
    path = Path(name) if name.endswith(".safetensors") else SHIPPED / f"{name}.safetensors"
    try:
        data = path.read_bytes()
    except (OSError, ValueError):
        known = sorted(file.stem for file in SHIPPED.glob("*.safetensors") if not file.stem.endswith("-decoder"))
        raise UserError(
            f"no agent {name}: use {' or '.join(known) or '(none comes with this version)'}, or a FILE.safetensors"
            " written by jobs.export"
        ) from None
    tensors, info = _open(path, data)
    config = _config(info, path, allow_game)
    decoder = _decoder(path, info["decoder"])
    has_memory = any(name.startswith("memory.") for name in tensors)
    if config.uses_memory and not has_memory:
        raise Damaged(str(path), "it has no M, which its C needs", CURE)
    _check_shapes(tensors, decoder, config, has_memory, str(path))
    vision = new_vision(config.vision.kind, config.vision.z)
    vision.load_state_dict(_under("vision.", tensors | decoder), strict=bool(decoder))
    memory = None
    if has_memory:
        memory = new_memory(fields.of_kind(config, "bits"), config.vision.z)
        memory.load_state_dict(_under("memory.", tensors))
    starts = None
    if "starts.mu" in tensors:
        mu, sigma = tensors["starts.mu"].numpy(), tensors["starts.sigma"].numpy()
        if not (sigma > 0).all():
            raise Damaged(str(path), "starts.sigma has values that are not above 0", CURE)
        starts = Starts(mu, 2 * np.log(sigma))
    return Trained(
        config,
        models_of(config, vision.eval(), memory.eval() if memory else None),
        tensors["theta"].double().numpy(),
        starts,
        info["card"],
        "agent",
        sha256(data),
        decodes=bool(decoder),
    )


def _open(path: Path, data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of an agent file, with its seal and schema checked."""
    tensors, info = unpack(data, str(path), CURE)
    check_format(info.get("format"), str(path), "export the agent again")
    verify_seal(data, str(path), CURE)
    checked(info, str(path), HEADER, CURE)
    return tensors, info


def _decoder(path: Path, digest: str | None) -> dict[str, Tensor]:
    """V's decoder: empty if its file is missing, or if there is none."""
    path = path.with_name(f"{path.stem}-decoder.safetensors")
    if digest is None or not path.exists():
        return {}
    data = path.read_bytes()
    if sha256(data) != digest:
        raise Damaged(
            str(path), "it is not the decoder of this agent", f"{CURE}, or delete it to play without pictures"
        )
    return unpack(data, str(path), CURE)[0]


def _config(info: dict[str, Any], path: Path, allow_game: bool) -> Config:
    """The config in the header. The game is only made if it is one of this project's or allowed."""
    try:
        config = without_threads(fields.from_dict(info["config"], Config))
        config.check_values()
    except (Wrong, UserError) as error:
        raise Damaged(str(path), str(error), CURE) from None
    if config.game not in GAMES and not allow_game:
        raise UserError(f"{path} plays {shown(config.game)}, whose code would run: add --allow-game if you trust it")
    return config.check()


def _check_shapes(
    tensors: dict[str, Tensor], decoder: dict[str, Tensor], config: Config, has_memory: bool, file: str
) -> None:
    """Compare with the shapes that the config asks for, before any memory is allocated for them."""
    try:
        with torch.device("meta"):
            vision = new_vision(config.vision.kind, config.vision.z)
            memory = new_memory(fields.of_kind(config, "bits"), config.vision.z) if has_memory else None
    except (RuntimeError, OverflowError, MemoryError):
        raise Damaged(file, "its models are too large", CURE) from None
    decoding = {id(parameter) for parameter in vision.decoder()}
    weights = vision.state_dict(keep_vars=True)
    parts = {name: x for name, x in weights.items() if (id(x) in decoding) == bool(decoder) or id(x) not in decoding}
    shapes: dict[str, Sequence[int]] = {f"vision.{name}": x.shape for name, x in parts.items()}
    shapes |= {f"memory.{name}": x.shape for name, x in (memory.state_dict() if memory else {}).items()}
    shapes["theta"] = (controller_of(config).size,)
    if "starts.mu" in tensors or "starts.sigma" in tensors:
        mu = tensors.get("starts.mu")
        count = len(mu) if mu is not None and mu.ndim else 1
        shapes |= {"starts.mu": (count, config.vision.z), "starts.sigma": (count, config.vision.z)}
    check_tensors({**decoder, **tensors}, shapes, file, CURE)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x.float() for name, x in tensors.items() if name.startswith(prefix)}
