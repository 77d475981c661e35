"""Moments of a run's rollouts: where its dreams begin, and what C gets to see."""

import numpy as np
import torch

from wm.checkpoints import unpack
from wm.config import Config
from wm.dream import Starts
from wm.memory import MDNRNN
from wm.run import Manifest, Run
from wm.search import SAMPLE
from wm.seeds import generator
from wm.shards import DataSet
from wm.stages.games import controller_of
from wm.stages.sharded import data_set

COUNT = 512  # frames amid episodes that dreams may begin with; some seconds of M's time


def starts_of(config: Config, run: Run, memory: MDNRNN) -> Starts:
    """The starts that its config asks for."""
    vision = run.need("vision", config.vision.steps, "train_vision")
    return starts_in(run.need("latents", config.collect.episodes, "encode", of=vision.digest), config, memory)


def starts_in(latents: Manifest, config: Config, memory: MDNRNN | None) -> Starts:
    """The same of latents at hand; without an M all that there is are first frames."""
    if config.evolve.dream_starts != "first" and memory is not None:
        own = config.collect.episodes if config.evolve.dream_starts == "own" else 0
        return amid(data_set(latents, "encode"), memory, COUNT, generator(config.seed, "starts"), own)
    starts = unpack(latents.read(latents.content["starts"]))[0]
    return Starts(starts["mu"].numpy(), starts["logvar"].numpy())


def seen_by(config: Config, run: Run, memory: MDNRNN | None) -> np.ndarray:
    """What C would have seen at moments of its rollouts, each as likely as any other. (S, F)"""
    vision = run.need("vision", config.vision.steps, "train_vision")
    data = data_set(run.need("latents", config.collect.episodes, "encode", of=vision.digest), "encode")
    moments = amid(data, memory, SAMPLE, generator(config.seed, "seen"))
    remembered = () if moments.memories is None else (moments.memories,)
    return np.concatenate((moments.mu, *remembered), axis=1)[:, : controller_of(config).features_size]


@torch.inference_mode()
def amid(data: DataSet, memory: MDNRNN | None, count: int, rng: np.random.Generator, last: int = 0) -> Starts:
    """So many frames, each as likely as any other, with h and c (if there is an M) after all that came before.

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
        state, at = memory.initial(1) if memory else None, 0
        for frame in frames[episodes == episode]:
            step = int(frame - ends[episode] + data.lengths[episode])
            if memory and step > at:
                going_on = torch.zeros(1, step - at) if memory.previous_done else None
                _, state = memory(z[:, at:step], a[:, at:step], state, going_on)
            at = step
            mu.append(found["mu"][step])
            logvar.append(found["logvar"][step])
            if state:
                memories.append(torch.cat(state, dim=1)[0].numpy())
    return Starts(np.stack(mu), np.stack(logvar), np.stack(memories) if memories else None)
