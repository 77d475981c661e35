"""The dream: M as the game (Ha & Schmidhuber, 2018, section 4), thousands of episodes in one batch.

No frame is ever drawn: C acts on z and h, M says what comes next. All buffers are made once and written in place,
so that a step is little more than its matrix products, and on CUDA a chunk of steps is one recorded graph.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wm.agent import room
from wm.controller import Controller
from wm.memory import MDNRNN, choose
from wm.mistakes import Mistake

LINE = 16  # floats in a cache line
CHUNK = 16  # steps between two looks at who is still alive; also how much noise is drawn at once


@dataclass(frozen=True)
class Rules:
    """How a dream is played."""

    steps: int
    """The cap: an episode ends here at the latest. The paper's Doom: 2,100."""
    tau: float | tuple[float, float] = 1.0
    """Temperature, or the range that each episode draws its own from."""
    done: Literal["threshold", "sample", "never"] = "threshold"
    """An episode ends where M's done logit is above 0, with M's probability, or at the cap alone."""
    reward: Literal["head", "survival"] = "survival"
    """What a step is worth: what M predicts, or 1."""
    dropout: float = 0.0
    """Dropout on the h that M's heads see, which makes the dream harder to cheat."""
    done_weight: float = 1.0
    """How much more an end counted in M's training, which raised its odds by that: a sampled done takes it back."""
    lap: float = 0.0
    """A dream ends when its rewards, the price of each step aside, add up to this; 0: it doesn't."""
    step_price: float = 0.0

    @property
    def taus(self) -> tuple[float, float]:
        low, high = self.tau if isinstance(self.tau, tuple) else (self.tau, self.tau)
        if not 0 < low <= high:
            raise Mistake(f"temperature {self.tau} has to be above 0, and a range has to rise")
        return low, high


class Starts:
    """Where dreams begin: (mu, logvar) of frames of real episodes, each (S, Z).

    Those from amid an episode come with what M made of it so far, h and c side by side (S, 2H); first frames have
    nothing behind them.
    """

    def __init__(self, mu: np.ndarray, logvar: np.ndarray, memories: np.ndarray | None = None):
        assert mu.shape == logvar.shape, (mu.shape, logvar.shape)
        assert memories is None or len(memories) == len(mu), (memories.shape, mu.shape)
        if len(mu) == 0:
            raise Mistake("a dream needs at least one stored first frame to begin with")
        self.mu, self.sigma = mu.astype(np.float32), np.exp(0.5 * logvar).astype(np.float32)
        self.memories = None if memories is None else memories.astype(np.float32)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | float]:
        """z of one episode's beginning (Z,), and its h and c (2H,), which are 0 at first frames."""
        start = rng.integers(len(self.mu))
        z = self.mu[start] + self.sigma[start] * rng.standard_normal(self.mu.shape[1], dtype=np.float32)
        return z, 0.0 if self.memories is None else self.memories[start]


class Sleepers:
    """B dreams that step together: their state, and room for all that a step computes."""

    def __init__(self, batch: int, memory: MDNRNN, device: torch.device):
        z, actions, hidden = memory.z, memory.actions, memory.hidden

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, device=device)

        # Side by side, so that both what M takes in and what C sees are views: nothing is put together each step.
        # Every row lies alike to the cache lines, since products may add in another order where it doesn't.
        gap = -actions % LINE
        self.x = zeros(gap + actions + -(-(z + 2 * hidden) // LINE) * LINE)
        self.seen = self.x[:, gap:][:, : actions + z + hidden]  # M's input
        self.state = self.x[:, gap + actions :][:, : z + 2 * hidden]  # C's
        self.a = self.seen[:, :actions]
        self.z, self.h, self.c = self.state.split((z, hidden, hidden), dim=1)
        self.gates, self.squashed = zeros(4 * hidden), zeros(hidden)
        self.heads = zeros(memory.heads.out_features)
        self.tau, self.reward, self.done = zeros(1), zeros(), zeros().bool()


class World:
    """M as a game for any number of dreams: what follows z, a and h. `rules.steps` is the caller's to keep."""

    def __init__(
        self,
        memory: MDNRNN,
        starts: Starts,
        rules: Rules,
        squash: Callable[[Tensor], Tensor],  # the game's: C's unbounded output to actions
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,  # of the matrix products alone
    ):
        *mixture, reward, done, _ = memory.outputs
        if rules.reward == "head" and not reward:
            raise Mistake("this M predicts no reward: dream for survival, or train an M with the reward head")
        if rules.done != "never" and not done:
            raise Mistake("this M predicts no end: let dreams end never but at the cap, or train an M with done")
        self.memory, self.starts, self.rules, self.squash = memory, starts, rules, squash
        self.device, self.dtype = torch.device(device), dtype
        self.mixture, self.reward_heads = sum(mixture), reward
        # Per episode and step: choose a component, deviate from it, end, drop units.
        self.uniforms = memory.z + 1 + (memory.hidden if rules.dropout else 0)
        self.widths = [memory.z, self.uniforms - memory.z, memory.z]
        with torch.no_grad():
            weight = memory.gates.weight.detach().clone()  # (4H, Z + A [+ 1] + H)
            bias = memory.gates.bias.detach().clone()
            # tanh(g) = 2 sigmoid(2g) - 1: with the inner 2 in the weights, one call does all four gates.
            cell = slice(2 * memory.hidden, 3 * memory.hidden)
            weight[cell] *= 2
            bias[cell] *= 2
            z, a, _, h = weight.split((memory.z, memory.actions, memory.previous_done, memory.hidden), dim=1)
            self.gates = self._pack(torch.cat((a, z, h), dim=1), bias)  # the previous done is 0 in all that lives
            self.heads = self._pack(memory.heads.weight.detach(), memory.heads.bias.detach())

    def _pack(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return bias.to(self.device, self.dtype), weight.t().contiguous().to(self.device, self.dtype)

    def sleepers(self, batch: int) -> Sleepers:
        return Sleepers(batch, self.memory, self.device)

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        """What `step` needs of randomness, for so many steps of one episode. (steps, W)"""
        uniform = rng.random((steps, self.uniforms), dtype=np.float32)
        return np.concatenate((uniform, rng.standard_normal((steps, self.memory.z), dtype=np.float32)), axis=1)

    def begin(self, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """The state that one episode begins in, z, h and c (Z + 2H,), and its temperature."""
        low, high = self.rules.taus
        z, memories = self.starts.draw(rng)
        state = np.zeros(self.memory.z + 2 * self.memory.hidden, np.float32)
        state[: self.memory.z], state[self.memory.z :] = z, memories
        return state, float(rng.uniform(low, high))

    def step(self, s: Sleepers, noise: Tensor) -> None:
        """From z, a, h, c to what comes next, in place; noise is (B, W)."""
        uniform, others, normal = noise.split(self.widths, dim=1)
        _affine(s.seen, self.gates, s.gates)
        i, f, g, o = s.gates.sigmoid_().chunk(4, dim=1)  # (B, H) each
        s.c.mul_(f).addcmul_(i, g.sub_(0.5), value=2)  # c = f c + i tanh(g)
        torch.mul(s.c, 2, out=s.squashed).sigmoid_().sub_(0.5)
        torch.mul(s.squashed.mul_(2), o, out=s.h)  # h = o tanh(c)
        h = s.h
        if p := self.rules.dropout:
            h = h * (others[:, 1:] >= p) / (1 - p)
        _affine(h, self.heads, s.heads)
        shape = (3, self.memory.mixtures, self.memory.z)
        logits, mu, logsigma = s.heads[:, : self.mixture].unflatten(1, shape).unbind(dim=1)  # (B, K, Z)
        s.z.copy_(choose(logits, mu, logsigma, s.tau, uniform, normal))
        if self.rules.reward == "head":
            s.reward.copy_(s.heads[:, self.mixture])
        else:
            s.reward.fill_(1)
        if self.rules.done != "never":
            logit = s.heads[:, self.mixture + self.reward_heads]
            if self.rules.done == "threshold":
                s.done.copy_(logit > 0)
            else:
                s.done.copy_(others[:, 0] < torch.sigmoid(logit - math.log(self.rules.done_weight)))


class Players(Sleepers):
    """Sleepers with their C and their score; row B dreams episode `episode[B]` for the place `row[B]` in the result."""

    def __init__(self, batch: int, episodes: int, world: World, controller: Controller):
        super().__init__(batch, world.memory, world.device)
        zeros = torch.zeros(batch, device=world.device)
        self.features = self.state[:, : controller.features_size].unsqueeze(1)  # (B, 1, F)
        lines = -(-controller.size // LINE) * LINE
        self.padded = torch.zeros(batch, lines, device=world.device)
        self.theta = self.padded[:, : controller.size]
        self.episode, self.row = zeros.long(), zeros.long()
        self.alive, self.returns, self.lengths = zeros.bool(), zeros, zeros.clone()
        self.noise = torch.zeros(CHUNK, episodes, sum(world.widths), device=world.device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def move_in(self, others: "Players", rows: Tensor) -> None:
        """Take over these rows."""
        for name in ("x", "tau", "padded", "episode", "row", "alive", "returns", "lengths"):
            torch.index_select(getattr(others, name), 0, rows, out=getattr(self, name))


class Dream:
    """A population's dreams: what evolution asks in place of the real game.

    Noise depends on (seed, episode, step) alone, so all candidates dream of the same luck, and how episodes are
    dealt out to batches doesn't change it.
    """

    def __init__(self, world: World, controller: Controller):
        memory = world.memory
        wanted, given = (memory.z, memory.actions), (controller.z, controller.actions)
        assert wanted == given, (wanted, given)
        assert controller.inputs == "z" or controller.hidden == memory.hidden, (controller.hidden, memory.hidden)
        self.world, self.controller = world, controller
        self.rooms: dict[tuple[int, int], Players] = {}

    @torch.inference_mode()
    def rollout(self, theta: np.ndarray, seed: int, episodes: int | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Every candidate (P, N) dreams every episode -> returns and lengths, each (P, E)."""
        numbers = range(episodes) if isinstance(episodes, int) else episodes
        rngs = [np.random.default_rng((seed, number)) for number in numbers]
        population = self.controller.tensor(theta, self.world.device)  # (P, N)
        count, shape = len(population) * len(rngs), (len(population), len(rngs))
        players = self._room(count, len(rngs))
        self._fill(players, population, rngs)
        returns, lengths = np.zeros(count, np.float32), np.zeros(count, np.int64)
        while True:
            noise = np.stack([self.world.noise(rng, CHUNK) for rng in rngs], axis=1)  # (CHUNK, E, W)
            players.noise.copy_(torch.from_numpy(noise))
            if players.graph is not None:
                players.graph.replay()
            else:
                self._chunk(players)
            alive = int(players.alive.sum())
            if alive and self._size(alive) == len(players.x):
                continue
            row = players.row.cpu().numpy()
            counted = row < count  # the rest is padding
            returns[row[counted]] = players.returns.cpu().numpy()[counted]
            lengths[row[counted]] = players.lengths.cpu().numpy()[counted]
            if not alive:
                return returns.reshape(shape), lengths.reshape(shape)
            # The dead leave; as many stay as fill the smaller room.
            first = torch.argsort((~players.alive).to(torch.uint8), stable=True)
            smaller = self._room(alive, len(rngs))
            smaller.move_in(players, first[: len(smaller.x)])
            players = smaller

    def _size(self, rows: int) -> int:
        return max(8, room(rows))  # below 4 rows matrix products add in another order

    def _room(self, rows: int, episodes: int) -> Players:
        """Buffers for so many dreams, made once; on CUDA with their recorded graph."""
        key = (self._size(rows), episodes)
        if key not in self.rooms:
            players = self.rooms[key] = Players(*key, self.world, self.controller)
            if self.world.device.type == "cuda":
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    self._chunk(players)  # a graph may only be recorded once its kernels have run
                side.synchronize()
                players.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(players.graph):
                    self._chunk(players)
        return self.rooms[key]

    def _fill(self, players: Players, population: Tensor, rngs: list[np.random.Generator]) -> None:
        device, count = self.world.device, len(population) * len(rngs)
        begun = [self.world.begin(rng) for rng in rngs]
        states = torch.from_numpy(np.stack([state for state, _ in begun])).to(device)  # (E, Z + 2H)
        tau = torch.tensor([tau for _, tau in begun], device=device)  # (E,)
        for buffer in (players.x, players.returns, players.lengths):
            buffer.zero_()
        players.row.copy_(torch.arange(len(players.x)))
        real = players.row.clamp(max=count - 1)  # padding repeats the last dream, but dead
        torch.remainder(real, len(rngs), out=players.episode)
        players.theta.copy_(population[real // len(rngs)])
        players.state.copy_(states[players.episode])
        players.tau.copy_(tau[players.episode, None])
        players.alive.copy_(players.row < count)

    def _chunk(self, p: Players) -> None:
        """CHUNK steps, with no look at what is in the tensors: those that have ended sleep on, uncounted."""
        rules = self.world.rules
        for noise in p.noise:  # (E, W)
            p.a.copy_(self.world.squash(self.controller.act(p.theta, p.features).squeeze(1)))
            self.world.step(p, noise.index_select(0, p.episode))
            p.returns.add_(p.reward.masked_fill(~p.alive, 0))
            p.lengths.add_(p.alive)
            p.alive.logical_and_(p.lengths < rules.steps).logical_and_(~p.done)
            if rules.lap:
                p.alive.logical_and_(p.returns + rules.step_price * p.lengths < rules.lap)


def _affine(x: Tensor, packed: tuple[Tensor, Tensor], out: Tensor) -> None:
    bias, weight = packed
    if weight.dtype == x.dtype:
        torch.addmm(bias, x, weight, out=out)
    else:
        out.copy_(torch.addmm(bias, x.to(weight.dtype), weight))
