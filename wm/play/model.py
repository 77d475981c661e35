"""What the page computes with: V's decoder, M, C and first frames, as one block of bytes and a description of it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wm.agents.trained import Trained
from wm.dream.world import World
from wm.errors import UserError
from wm.models.memory import MDNRNN
from wm.models.vision import VAE
from wm.play.controls import Controls, controls_of
from wm.play.wasm import PANEL

STARTS = 64  # first frames that come along
ROOM = 5_900_000  # bytes, which are 7.9 MB in the page


@dataclass
class Block:
    """Named arrays one after the other, with an index that says where each is."""

    data: bytearray = field(default_factory=bytearray)
    index: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, values: Tensor | np.ndarray, kind: str = "half", **about: int) -> None:
        """`kind` is half, 16 bits a number, or single, 32."""
        numbers = np.ascontiguousarray(values, np.dtype({"half": "<f2", "single": "<f4"}[kind]))
        self.index[name] = {"offset": len(self.data), "length": numbers.nbytes, "kind": kind, **about}
        self.data += numbers.tobytes()
        self.data += bytes(-len(self.data) % 4)

    def matrix(self, name: str, matrix: Tensor, kind: str = "half") -> None:
        """(inner, columns), in panels of 16 columns: as `wm.play.wasm` takes it."""
        inner, columns = matrix.shape
        padded = np.zeros((inner, -(-columns // PANEL) * PANEL), np.float32)
        padded[:, :columns] = matrix
        self.add(name, padded.reshape(inner, -1, PANEL).transpose(1, 0, 2), kind, inner=inner, columns=columns)


def world_of(trained: Trained) -> World:
    """The agent's dream; one without an end, where its M predicts none."""
    if trained.memory is None:
        raise UserError("this agent has no M, so it can't dream")
    *_, done, _ = trained.memory.outputs
    return trained.world() if done else trained.world(done="never")


@torch.no_grad()
def exported(trained: Trained) -> tuple[dict[str, Any], bytes]:
    """The description, ready for JSON, and the bytes it refers to."""
    memory, starts, vision = trained.memory, trained.starts, trained.vision
    if memory is None:
        raise UserError("this agent has no M, so it can't dream")
    if starts is None:
        raise UserError("there are no first frames to start dreams from: run `python -m jobs.latents`")
    if not trained.decodes:
        raise UserError("this agent has no decoder for V: put NAME-decoder.safetensors next to its file")
    if not isinstance(vision, VAE):
        raise UserError(f"the page can't decode with a {type(vision).__name__}, only with the paper's V")
    block = Block()
    _add_decoder(block, vision)
    kind = _precision(memory, ROOM - len(block.data))
    z, a, _, h = memory.gates.weight.split((memory.z, memory.actions, memory.previous_done, memory.hidden), dim=1)
    block.matrix(
        "memory.gates", torch.cat((a, z, h), dim=1).t(), kind
    )  # the previous done is 0 in a dream that goes on
    block.add("memory.gates.bias", memory.gates.bias, kind)
    block.matrix("memory.heads", memory.heads.weight.t(), kind)
    block.add("memory.heads.bias", memory.heads.bias, kind)
    block.add("theta", trained.theta, "single")
    block.add("starts.mu", starts.mu[:STARTS], "single")
    block.add("starts.sigma", starts.sigma[:STARTS], "single")
    return _description(trained, controls_of(trained.game), block.index), bytes(block.data)


def _precision(memory: MDNRNN, room: int) -> str:
    """M keeps its bits where there is room. Rounding to half precision changes z by a thousandth of its deviation in a
    step, which is enough to make another dream within some fifty; the decoder's rounding is a seventh of a grey level.
    """
    weights = list(memory.parameters())
    exact = all(torch.equal(x, x.half().float()) for x in weights)  # as in an agent's file
    return "half" if exact or 4 * sum(x.numel() for x in weights) > room else "single"


def _add_decoder(block: Block, vision: VAE) -> None:
    """Nothing stands between the first two layers but their biases, so they are stored as one matrix of Z rows, a
    thirtieth of the size. Outputs of a transposed convolution are laid out as (kernel, kernel, channels).
    """
    widen, first = vision.widen, vision.deconvolution
    assert first.bias is not None
    spread = first.weight.permute(0, 2, 3, 1).flatten(start_dim=1).double()  # (1024, 5 * 5 * 128)
    block.matrix("decoder.first", (widen.weight.t().double() @ spread).float())  # (Z, 3200)
    bias = widen.bias.double() @ spread + first.bias.double().repeat(25)
    block.add("decoder.first.bias", bias.float(), "single")
    for index, layer in enumerate(vision.deconvolutions):
        assert isinstance(layer, nn.ConvTranspose2d)
        assert layer.bias is not None
        block.matrix(f"decoder.{index}", layer.weight.permute(0, 2, 3, 1).flatten(start_dim=1))
        block.add(f"decoder.{index}.bias", layer.bias)


def _description(trained: Trained, controls: Controls, tensors: dict[str, Any]) -> dict[str, Any]:
    assert trained.memory is not None
    assert trained.starts is not None
    memory, controller = trained.memory, trained.controller
    *_, reward, done, _ = memory.outputs
    rules = world_of(trained).rules
    return {
        "game": trained.config.game,
        "z": memory.z,
        "actions": memory.actions,
        "hidden": memory.hidden,
        "mixtures": memory.mixtures,
        "reward": reward,
        "done": done,
        "controller": {
            "inputs": controller.inputs,
            "outputs": controller.outputs,
            "layer": controller.layer,
            "bias": controller.bias,
            "squash": controls.squash,
        },
        "rules": {
            "steps": rules.steps,
            "tau": rules.tau,
            "done": rules.done,
            "reward": rules.reward,
            "doneWeight": rules.done_weight,
            "lap": rules.lap,
            "stepPrice": rules.step_price,
        },
        "starts": min(STARTS, len(trained.starts.mu)),
        "controls": controls.description(),
        "tensors": tensors,
    }
