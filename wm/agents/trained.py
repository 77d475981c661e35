"""A trained agent in one file: V, M, C, where dreams begin, the config, and a card that says how it was made.

All that plays lies in `NAME.safetensors`; V's decoder, which only who watches needs, in `NAME-decoder.safetensors`
beside it. Weights may be stored in half precision. They are computed with in full all the same, so that the file, once
loaded, is the agent that was scored.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm.agents.artifacts import load_theta, parts
from wm.config import fields
from wm.config.schema import FORMAT, Config
from wm.dream.rules import rules_of
from wm.dream.starts import Starts, first_frames, latents_of
from wm.dream.world import World
from wm.envs import Game, load
from wm.errors import UserError
from wm.models.agent import Agent
from wm.models.build import controller_of, untrained_memory, untrained_vision
from wm.models.controller import Controller
from wm.models.memory import MDNRNN
from wm.models.vision import Vision
from wm.runs.checkpoints import pack, unpack
from wm.runs.run import Manifest, Run
from wm.runs.storage import sha256

SHIPPED = Path(__file__).parent  # those that come with the project
STARTS = 64  # first frames that come along


@dataclass(frozen=True)
class Trained:
    """V, M and C as they were scored."""

    config: Config
    vision: Vision
    memory: MDNRNN | None
    theta: np.ndarray  # (N,)
    starts: Starts | None  # of whole dreams: first frames
    card: dict[str, Any]
    origin: str  # "evolve" or "agent": what it came from ...
    digest: str  # ... and its hash
    decodes: bool = True  # whether V's decoder is there

    @property
    def game(self) -> Game:
        return load(self.config.game)

    @property
    def controller(self) -> Controller:
        return controller_of(self.config)

    def agent(self, episodes: int = 1, seed: int = 0) -> Agent:
        """It plays so many episodes side by side: a policy for `wm.rollout.play`."""
        return Agent(
            self.vision,
            self.memory,
            self.controller,
            self.theta,
            [0] * episodes,
            self.game.squash,
            latent=self.config.controller.latent,
            seed=seed,
        )

    def world(self, **changes: Any) -> World:
        """Its whole dreams, as long as the game; `changes` are those of `wm.dream.Rules`: steps, tau, ..."""
        if self.memory is None or self.starts is None:
            raise UserError("this agent has no M, so it can't dream")
        rules = dataclasses.replace(rules_of(self.config), **{"steps": self.game.max_steps} | changes)
        return World(self.memory, self.starts, rules, self.game.squash)


def of_run(run: Run) -> Trained:
    """The best-validated C of a run, with the V and M that it was evolved on."""
    config = run.config
    stage, _, vision, memory = parts(config, run)
    made = stage.manifest()
    if made is None:
        raise UserError(f"no complete evolve in {run.uri}: run `python -m jobs.evolve --run {run.uri}`")
    starts = first_frames(latents_of(config, run)) if memory else None
    decodes = has_decoder(run.need("vision", config.vision.steps, "train_vision"))
    return Trained(config, vision, memory, load_theta(made), starts, {}, "evolve", made.digest, decodes)


def has_decoder(vision: Manifest) -> bool:
    """Whether this V can show what it sees: one that came in an agent's file perhaps can't."""
    return bool(vision.content.get("decodes", True))


def export(trained: Trained, half: bool) -> tuple[bytes, bytes | None]:
    """(the agent, the decoder) as files."""

    def small(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.half() if half else tensor for name, tensor in tensors.items()}

    decoder = {id(parameter) for parameter in trained.vision.decoder()}
    weights = trained.vision.state_dict(keep_vars=True)
    vision = {f"vision.{name}": tensor for name, tensor in weights.items()}
    memory = trained.memory.state_dict() if trained.memory else {}
    tensors = small({name: tensor for name, tensor in vision.items() if id(tensor) not in decoder})
    tensors |= small({f"memory.{name}": tensor for name, tensor in memory.items()})
    tensors["theta"] = torch.from_numpy(trained.theta)  # so small that nothing is gained by rounding it
    if trained.starts is not None:
        tensors["starts.mu"] = torch.from_numpy(trained.starts.mu[:STARTS])
        tensors["starts.sigma"] = torch.from_numpy(trained.starts.sigma[:STARTS])
    config = _lasting(fields.to_dict(_alone(trained.config)))
    info = {"format": FORMAT, "config": config, "card": trained.card}
    shows = pack(small({name: x for name, x in vision.items() if id(x) in decoder}), {}) if trained.decodes else None
    return pack(tensors, info), shows


def _alone(config: Config) -> Config:
    """The same without the runs that it was made from, which aren't there."""
    return dataclasses.replace(
        config,
        collect=dataclasses.replace(config.collect, agent="", curiosity=0.0),
        vision=dataclasses.replace(config.vision, init="", frozen=False),
        memory=dataclasses.replace(config.memory, init=""),
        evolve=dataclasses.replace(config.evolve, init="", init_sigma=0.0, refit=False, components=0),
    )


def _lasting(values: dict[str, Any]) -> dict[str, Any]:
    """What an agent is made of, without how a run goes on: so its file stays readable when that changes."""
    return {section: value for section, value in values.items() if section not in ("rounds", "polish", "workers")}


def load_trained(name: str) -> Trained:
    """The agent of that name that comes with the project, or the one in that file."""
    path = Path(name) if name.endswith(".safetensors") else SHIPPED / f"{name}.safetensors"
    try:
        data = path.read_bytes()
    except OSError:
        known = sorted(file.stem for file in SHIPPED.glob("*.safetensors") if not file.stem.endswith("-decoder"))
        raise UserError(
            f"no agent {name}: say one of {', '.join(known) or '(none comes with this version)'}, or the"
            " FILE.safetensors that jobs.export wrote"
        ) from None
    try:
        tensors, info = unpack(data)
        config = fields.from_dict(_lasting(info["config"]), Config)
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is no agent of ours: export it again with jobs.export") from None
    except Exception as error:  # safetensors has an exception of its own for files that aren't whole
        raise UserError(f"{path} can't be read ({error}): export it again with jobs.export") from None
    beside = path.with_name(f"{path.stem}-decoder.safetensors")
    decoder = unpack(beside.read_bytes())[0] if beside.exists() else {}
    vision = untrained_vision(config.vision.kind, config.vision.z)
    vision.load_state_dict(_under("vision.", tensors | decoder), strict=bool(decoder))
    memory = None
    if weights := _under("memory.", tensors):
        memory = untrained_memory(fields.of_kind(config, "bits"), config.vision.z)
        memory.load_state_dict(weights)
    starts = None
    if "starts.mu" in tensors:
        mu, sigma = tensors["starts.mu"].numpy(), tensors["starts.sigma"].numpy()
        starts = Starts(mu, 2 * np.log(sigma))
    return Trained(
        config,
        vision.eval(),
        memory.eval() if memory else None,
        tensors["theta"].numpy(),
        starts,
        info["card"],
        "agent",
        sha256(data),
        decodes=bool(decoder),
    )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x.float() for name, x in tensors.items() if name.startswith(prefix)}
