"""Initial states of dreams: first frames of real episodes, or any of their frames with M's state at that frame."""

import numpy as np
import torch

from wm.config.schema import Config
from wm.errors import UserError
from wm.models.memory import MDNRNN
from wm.runs.datasets import latents_of
from wm.runs.manifest import Manifest
from wm.runs.reader import Damaged, check_tensors, unpack
from wm.runs.shards import DataSet
from wm.seeds import generator

COUNT = 512  # frames to start from if they are not first frames; takes M some seconds


class Starts:
    """(mu, logvar) of frames of real episodes, each (S, Z).

    Frames within an episode come with M's state at that frame, the concatenated h and c (S, 2H). At first frames it is
    zero.
    """

    def __init__(self, mu: np.ndarray, logvar: np.ndarray, states: np.ndarray | None = None):
        assert mu.shape == logvar.shape, (mu.shape, logvar.shape)
        assert states is None or len(states) == len(mu), (states.shape, mu.shape)
        if len(mu) == 0:
            raise UserError("dreams need at least one stored first frame to start from")
        self.mu, self.sigma = mu.astype(np.float32), np.exp(0.5 * logvar).astype(np.float32)
        self.states = None if states is None else states.astype(np.float32)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | float]:
        """The initial z (Z,) of one dream and its h and c (2H,), which are 0 at first frames."""
        start = rng.integers(len(self.mu))
        z = self.mu[start] + self.sigma[start] * rng.standard_normal(self.mu.shape[1], dtype=np.float32)
        return z, 0.0 if self.states is None else self.states[start]


def starts_of(config: Config, latents: Manifest, memory: MDNRNN) -> Starts:
    """The starts of C's dreams during evolution."""
    if config.evolve.dream_starts == "first":
        return first_frames(latents)
    data = _all_steps(latents, "to start dreams from: use --evolve.dream-starts first")
    own = config.collect.episodes if config.evolve.dream_starts == "own" else 0
    return any_frames(data, memory, COUNT, generator(config.seed, "starts"), own)


def input_sizes(latents: Manifest, memory: MDNRNN, seed: int) -> np.ndarray:
    """Root mean square of each possible input of C, z, h and c, in the rollouts. (Z + 2H,)"""
    data = _all_steps(latents, "to measure C's inputs on: remove --evolve.scaled")
    frames = any_frames(data, memory, COUNT, generator(seed, "sizes"))
    assert frames.states is not None
    squares = np.concatenate([frames.mu**2 + frames.sigma**2, frames.states**2], axis=1)
    return np.sqrt(squares.mean(axis=0, dtype=np.float64))


def _all_steps(latents: Manifest, purpose: str) -> DataSet:
    if not latents.content["shards"]:
        raise UserError(f"{latents.storage.uri} was unpacked from an agent file and has no rollouts {purpose}")
    return latents_of(latents)


def first_frames(latents: Manifest) -> Starts:
    key = latents.content.get("starts")
    if key is None:
        raise UserError(f"{latents.storage.uri} holds no first frames to start dreams from: use another run")
    file, cure = f"{latents.storage.uri}/{key}", latents.cure(key)
    starts, _ = unpack(latents.read(key), file, cure)
    shape = starts["mu"].shape if "mu" in starts else ()
    check_tensors(starts, {"mu": shape, "logvar": shape}, file, cure)
    if len(shape) != 2:
        raise Damaged(file, f"mu has the shape {list(shape)}", cure)
    return Starts(starts["mu"].numpy(), starts["logvar"].numpy())


@torch.inference_mode()
def any_frames(data: DataSet, memory: MDNRNN, count: int, rng: np.random.Generator, last: int = 0) -> Starts:
    """`count` frames drawn uniformly from all episodes or from the `last` ones, with M's h and c at each frame.

    A run's own episodes come after those of earlier runs.
    """
    ends = np.cumsum(data.lengths)
    begin = ends[-1] - data.lengths[-last:].sum() if last else 0
    frames = begin + np.sort(rng.choice(ends[-1] - begin, min(count, ends[-1] - begin), replace=False))
    episodes = np.searchsorted(ends, frames, side="right")
    mu, logvar, states = [], [], []
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
            states.append(torch.cat(state, dim=1)[0].numpy())
    return Starts(np.stack(mu), np.stack(logvar), np.stack(states))
