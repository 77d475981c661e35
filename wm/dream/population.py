"""All candidates of a generation in one batch of dreams, for evolution without the real game."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wm.dream.world import LINE, DreamBatch, World
from wm.models.agent import padded_size
from wm.models.controller import Controller

CHUNK = 16  # steps between checks for ended dreams, and of one draw of noise


class Players(DreamBatch):
    """Dreams, each with a C and a score; row B dreams episode `episode[B]` for position `row[B]` of the result."""

    def __init__(self, batch: int, episodes: int, world: World, controller: Controller):
        super().__init__(batch, world.memory, world.device, world.aligned)
        zeros = torch.zeros(batch, device=world.device)
        self.features = self.state[:, : controller.features_size].unsqueeze(1)  # (B, 1, F)
        lines = -(-controller.size // LINE) * LINE
        self.padded = torch.zeros(batch, lines, device=world.device)
        self.theta = self.padded[:, : controller.size]
        self.episode, self.row = zeros.long(), zeros.long()
        self.alive, self.returns, self.lengths = zeros.bool(), zeros, zeros.clone()
        self.noise = torch.zeros(CHUNK, episodes, sum(world.widths), device=world.device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def copy_rows(self, others: "Players", rows: Tensor) -> None:
        """Copy these rows of `others`."""
        for name in ("x", "padded", "episode", "row", "alive", "returns", "lengths"):
            torch.index_select(getattr(others, name), 0, rows, out=getattr(self, name))


class Dream:
    """The dreams of a population.

    Noise depends on (seed, episode, step) only, so it is the same for all candidates and in any batch. On a GPU the
    last bits of a dream may depend on the batch that it is in, since cuBLAS chooses its kernels by the batch's size.
    They are still a function of the arguments of `rollout`.
    """

    def __init__(self, world: World, controller: Controller):
        memory = world.memory
        assert controller.z == memory.z, (controller.z, memory.z)
        assert controller.inputs == "z" or controller.hidden == memory.hidden, (controller.hidden, memory.hidden)
        self.world, self.controller = world, controller
        self.batches: dict[tuple[int, int], Players] = {}
        self.stream: torch.cuda.Stream | None = None  # of all recordings: cuBLAS keeps a workspace for each stream

    @torch.inference_mode()
    def rollout(self, theta: np.ndarray, seed: int, episodes: int | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Every candidate (P, N) dreams every episode -> returns and lengths, each (P, E)."""
        numbers = range(episodes) if isinstance(episodes, int) else episodes
        rngs = [np.random.default_rng((seed, number)) for number in numbers]
        population = self.controller.tensor(theta, self.world.device)  # (P, N)
        count, shape = len(population) * len(rngs), (len(population), len(rngs))
        players = self._batch(count, len(rngs))
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
            # Ended dreams leave the batch, except those that fill up the smaller one.
            first = torch.argsort((~players.alive).to(torch.uint8), stable=True)
            smaller = self._batch(alive, len(rngs))
            smaller.copy_rows(players, first[: len(smaller.x)])
            players = smaller

    def _size(self, rows: int) -> int:
        return max(8, padded_size(rows))  # with fewer than 4 rows, matrix products add in another order

    def _batch(self, rows: int, episodes: int) -> Players:
        """Buffers for this many dreams, allocated once; on CUDA with their recorded graph."""
        key = (self._size(rows), episodes)
        if key not in self.batches:
            players = self.batches[key] = Players(*key, self.world, self.controller)
            if self.world.device.type == "cuda":
                self._record(players)
        return self.batches[key]

    def _record(self, players: Players) -> None:
        self.stream = self.stream or torch.cuda.Stream()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self._chunk(players)  # kernels must have run before a graph can be recorded
        self.stream.synchronize()
        # All graphs share their memory: they run one after the other, and leave nothing but what is in the buffers.
        pool = next((one.graph.pool() for one in self.batches.values() if one.graph), None)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=self.stream):
            self._chunk(players)
        players.graph = graph

    def _fill(self, players: Players, population: Tensor, rngs: list[np.random.Generator]) -> None:
        device, count = self.world.device, len(population) * len(rngs)
        states = torch.from_numpy(np.stack([self.world.begin(rng) for rng in rngs])).to(device)  # (E, Z + 2H)
        for buffer in (players.x, players.returns, players.lengths):
            buffer.zero_()
        players.row.copy_(torch.arange(len(players.x)))
        dreams = players.row.clamp(max=count - 1)  # padding repeats the last dream, as an ended one
        torch.remainder(dreams, len(rngs), out=players.episode)
        players.theta.copy_(population[dreams // len(rngs)])
        players.state.copy_(states[players.episode])
        players.alive.copy_(players.row < count)

    def _chunk(self, p: Players) -> None:
        """CHUNK steps without a transfer from the device: ended dreams continue, but their rewards do not count."""
        rules = self.world.rules
        for noise in p.noise:  # (E, W)
            p.a.copy_(self.world.squash(self.controller.act(p.theta, p.features).squeeze(1)))
            self.world.step(p, noise.index_select(0, p.episode))
            p.returns.add_(p.reward.masked_fill(~p.alive, 0))
            p.lengths.add_(p.alive)
            p.alive.logical_and_(p.lengths < rules.steps).logical_and_(~p.done)
            if rules.lap:
                p.alive.logical_and_(p.returns + rules.step_price * p.lengths < rules.lap)
