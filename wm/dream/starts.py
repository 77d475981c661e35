"""Where a run's dreams begin: with first frames of its rollouts, or amid them, as the agent would stand there."""

import numpy as np
import torch

from wm.config.schema import Config
from wm.errors import UserError
from wm.models.memory import MDNRNN
from wm.runs.checkpoints import unpack
from wm.runs.datasets import data_set
from wm.runs.run import Manifest, Run
from wm.runs.shards import DataSet
from wm.seeds import generator

COUNT = 512  # frames amid episodes that dreams may begin with; some seconds of M's time


class Starts:
    """Where dreams begin: (mu, logvar) of frames of real episodes, each (S, Z).

    Those from amid an episode come with what M made of it so far, h and c side by side (S, 2H); first frames have
    nothing behind them.
    """

    def __init__(self, mu: np.ndarray, logvar: np.ndarray, memories: np.ndarray | None = None):
        assert mu.shape == logvar.shape, (mu.shape, logvar.shape)
        assert memories is None or len(memories) == len(mu), (memories.shape, mu.shape)
        if len(mu) == 0:
            raise UserError("a dream needs at least one stored first frame to begin with")
        self.mu, self.sigma = mu.astype(np.float32), np.exp(0.5 * logvar).astype(np.float32)
        self.memories = None if memories is None else memories.astype(np.float32)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | float]:
        """z of one episode's beginning (Z,), and its h and c (2H,), which are 0 at first frames."""
        start = rng.integers(len(self.mu))
        z = self.mu[start] + self.sigma[start] * rng.standard_normal(self.mu.shape[1], dtype=np.float32)
        return z, 0.0 if self.memories is None else self.memories[start]


def starts_of(config: Config, run: Run, memory: MDNRNN) -> Starts:
    """Where C's dreams begin while it learns, as the config asks for."""
    latents = latents_of(config, run)
    if config.evolve.dream_starts == "first":
        return first_frames(latents)
    data = _steps(latents, "for dreams to begin amid: say --evolve.dream-starts first")
    own = config.collect.episodes if config.evolve.dream_starts == "own" else 0
    return amid(data, memory, COUNT, generator(config.seed, "starts"), own)


def sizes_of(config: Config, run: Run, memory: MDNRNN) -> np.ndarray:
    """The root mean square of each number that C may see, z, h and c, in the rollouts. (Z + 2H,)"""
    data = _steps(latents_of(config, run), "to measure what C sees: leave --evolve.scaled out")
    seen = amid(data, memory, COUNT, generator(config.seed, "sizes"))
    assert seen.memories is not None
    squares = np.concatenate([seen.mu**2 + seen.sigma**2, seen.memories**2], axis=1)
    return np.sqrt(squares.mean(axis=0, dtype=np.float64))


def _steps(latents: Manifest, what_for: str) -> DataSet:
    """All steps, which a run made of an agent's file has none of."""
    if not latents.content["shards"]:
        raise UserError(f"{latents.storage.uri} came without rollouts {what_for}")
    return data_set(latents, "encode")


def latents_of(config: Config, run: Run) -> Manifest:
    vision = run.need("vision", config.vision.steps, "train_vision")
    return run.need("latents", config.collect.episodes, "encode", of=vision.digest)


def first_frames(latents: Manifest) -> Starts:
    """Where whole dreams begin, as episodes of the game do."""
    starts = unpack(latents.read(latents.content["starts"]))[0]
    return Starts(starts["mu"].numpy(), starts["logvar"].numpy())


@torch.inference_mode()
def amid(data: DataSet, memory: MDNRNN, count: int, rng: np.random.Generator, last: int = 0) -> Starts:
    """So many frames, each as likely as any other, with h and c after all that came before it in its episode.

    Of all episodes, or of the `last` ones: an agent's own come after those it learned from.
    """
    ends = np.cumsum(data.lengths)
    begin = ends[-1] - data.lengths[-last:].sum() if last else 0
    frames = begin + np.sort(rng.choice(ends[-1] - begin, min(count, ends[-1] - begin), replace=False))
    episodes = np.searchsorted(ends, frames, side="right")
    mu, logvar, memories = [], [], []
    for episode in np.unique(episodes):
        found = data.read(int(episode), ["mu", "logvar", "action"])
        z, a = (torch.from_numpy(found[name].copy())[None] for name in ("mu", "action"))  # (1, T, ...)
        state, at = memory.initial(1), 0
        for frame in frames[episodes == episode]:
            step = int(frame - ends[episode] + data.lengths[episode])
            if step > at:
                not_done = torch.zeros(1, step - at) if memory.previous_done else None
                _, state = memory(z[:, at:step], a[:, at:step], state, not_done)
            at = step
            mu.append(found["mu"][step])
            logvar.append(found["logvar"][step])
            memories.append(torch.cat(state, dim=1)[0].numpy())
    return Starts(np.stack(mu), np.stack(logvar), np.stack(memories))
