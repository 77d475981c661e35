"""The dream: M as the game (Ha & Schmidhuber, 2018, section 4), thousands of episodes in one batch.

No frames are decoded: C acts on z and h, and M predicts the next z. All buffers are allocated once and written in
place, so the matrix products take most of a step's time, and on CUDA a chunk of steps is one recorded graph.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wm.dream.rules import Rules
from wm.dream.starts import Starts
from wm.errors import UserError
from wm.models.memory import MDNRNN, choose

LINE = 16  # floats in a cache line


class DreamBatch:
    """B dreams that step together: their state, and buffers for the results of a step."""

    def __init__(self, batch: int, memory: MDNRNN, device: torch.device, aligned: bool = False):
        z, actions, hidden = memory.z, memory.actions, memory.hidden

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, device=device)

        # One buffer, so that the inputs of both M and C are views and no step concatenates tensors. All rows have the
        # same alignment to cache lines, because matrix products may add in another order with another alignment.
        gap = -actions % LINE
        self.x = zeros(gap + actions + _lines(z + 2 * hidden))
        self.seen = self.x[:, gap:][:, : actions + z + hidden]  # M's inputs
        if aligned:  # with the gap before them and what follows, which have weights of 0
            self.seen = self.x[:, : _lines(gap + actions + z + hidden)]
        self.state = self.x[:, gap + actions :][:, : z + 2 * hidden]  # C's inputs
        self.a = self.x[:, gap:][:, :actions]
        self.z, self.h, self.c = self.state.split((z, hidden, hidden), dim=1)
        self.gates, self.squashed = zeros(4 * hidden), zeros(hidden)
        self.heads = zeros(_lines(memory.heads.out_features) if aligned else memory.heads.out_features)
        self.reward, self.done = zeros(), zeros().bool()


class World:
    """M as a game for any number of dreams. The caller enforces `rules.steps` and `rules.lap`."""

    def __init__(
        self,
        memory: MDNRNN,
        starts: Starts,
        rules: Rules,
        squash: Callable[[Tensor], Tensor],  # of the game: C's unbounded output to actions
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,  # of the matrix products only
        aligned: bool | None = None,  # pad the operands of products to whole cache lines; None does so on GPUs
    ):
        *mixture, reward, done, _ = memory.outputs
        if rules.reward == "head" and not reward:
            raise UserError(
                'this M predicts no reward: use Rules(reward="survival"), or train an M with --memory.reward'
            )
        if rules.done != "never" and not done:
            raise UserError(
                "this M predicts no end of the episode: use --evolve.dream-done never, or train an M with --memory.done"
            )
        self.memory, self.starts, self.rules, self.squash = memory, starts, rules, squash
        self.device, self.dtype = torch.device(device), dtype
        # cuBLAS needs 16 bytes for its fast kernels. On CPUs the padding would change the order of additions.
        self.aligned = self.device.type == "cuda" if aligned is None else aligned
        self.mixture, self.reward_heads = sum(mixture), reward
        self.tau = torch.full((), rules.tau, device=self.device)
        # Noise of each step: uniform for the mixture component and for done, normal for the deviation from the mean.
        self.widths = [memory.z, 1, memory.z]
        with torch.no_grad():
            weight = memory.gates.weight.detach().clone()  # (4H, Z + A [+ 1] + H)
            bias = memory.gates.bias.detach().clone()
            # tanh(g) = 2 sigmoid(2g) - 1: with the inner factor 2 in the weights, one sigmoid computes all four gates.
            cell = slice(2 * memory.hidden, 3 * memory.hidden)
            weight[cell] *= 2
            bias[cell] *= 2
            z, a, _, h = weight.split((memory.z, memory.actions, memory.previous_done, memory.hidden), dim=1)
            weight = torch.cat((a, z, h), dim=1)  # the previous done is 0 in live dreams
            gap = -memory.actions % LINE
            self.gates = self._pack(weight, bias, gap, _lines(gap + weight.shape[1]) - gap - weight.shape[1])
            self.heads = self._pack(memory.heads.weight.detach(), memory.heads.bias.detach())

    def _pack(self, weight: Tensor, bias: Tensor, before: int = 0, after: int = 0) -> tuple[Tensor, Tensor]:
        """Bias and transposed weight; aligned, with zeros around the inputs and for whole lines of outputs."""
        weight = weight.t()  # (inputs, outputs)
        if self.aligned:
            outputs = _lines(weight.shape[1]) - weight.shape[1]
            weight, bias = F.pad(weight, (0, outputs, before, after)), F.pad(bias, (0, outputs))
        return bias.to(self.device, self.dtype), weight.contiguous().to(self.device, self.dtype)

    def batch(self, batch: int) -> DreamBatch:
        return DreamBatch(batch, self.memory, self.device, self.aligned)

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        """Noise for this many steps of one episode. (steps, W)"""
        uniform = rng.random((steps, self.memory.z + 1), dtype=np.float32)
        return np.concatenate((uniform, rng.standard_normal((steps, self.memory.z), dtype=np.float32)), axis=1)

    def begin(self, rng: np.random.Generator) -> np.ndarray:
        """The initial state of one episode: z, h and c. (Z + 2H,)"""
        z, history = self.starts.draw(rng)
        state = np.zeros(self.memory.z + 2 * self.memory.hidden, np.float32)
        state[: self.memory.z], state[self.memory.z :] = z, history
        rng.random()  # unused, but keeps the dreams of each seed the same as in published results
        return state

    def step(self, s: DreamBatch, noise: Tensor) -> None:
        """Advance z, h, c, reward and done in place; noise is (B, W)."""
        uniform, end, normal = noise.split(self.widths, dim=1)
        _affine(s.seen, self.gates, s.gates)
        i, f, g, o = s.gates.sigmoid_().chunk(4, dim=1)  # (B, H) each
        s.c.mul_(f).addcmul_(i, g.sub_(0.5), value=2)  # c = f c + i tanh(g)
        torch.mul(s.c, 2, out=s.squashed).sigmoid_().sub_(0.5)
        torch.mul(s.squashed.mul_(2), o, out=s.h)  # h = o tanh(c)
        _affine(s.h, self.heads, s.heads)
        shape = (3, self.memory.mixtures, self.memory.z)
        logits, mu, logsigma = s.heads[:, : self.mixture].unflatten(1, shape).unbind(dim=1)  # (B, K, Z)
        s.z.copy_(choose(logits, mu, logsigma, self.tau, uniform, normal))
        if self.rules.reward == "head":
            s.reward.copy_(s.heads[:, self.mixture])
        else:
            s.reward.fill_(1)
        if self.rules.done != "never":
            logit = s.heads[:, self.mixture + self.reward_heads]
            if self.rules.done == "threshold":
                s.done.copy_(logit > 0)
            else:
                s.done.copy_(end[:, 0] < torch.sigmoid(logit - math.log(self.rules.done_weight)))


def _lines(floats: int) -> int:
    return -(-floats // LINE) * LINE


def _affine(x: Tensor, packed: tuple[Tensor, Tensor], out: Tensor) -> None:
    bias, weight = packed
    if weight.dtype == x.dtype:
        torch.addmm(bias, x, weight, out=out)
    else:
        out.copy_(torch.addmm(bias, x.to(weight.dtype), weight))
