"""Metrics of a round: scores of C in the game and in dreams, coverage of the rollouts, and M's NLL on them."""

from typing import Any

import numpy as np
import torch

from wm.agents.artifacts import load_vision
from wm.agents.card import env_steps
from wm.agents.trained import Trained, best_so_far
from wm.config.schema import Config
from wm.dream.population import Dream
from wm.experiments.coverage import LatentGrid, coverage
from wm.experiments.vision_metrics import standardised
from wm.models.memory import nll
from wm.models.vision import draw, encode_in_batches
from wm.runs.datasets import rollouts_of
from wm.runs.run import Run
from wm.runs.shards import DataSet
from wm.seeds import derive
from wm.statistics import mean_of
from wm.training.learner import split

HELD_OUT = 8  # held-out episodes of each round at most
DREAMS = 32


def round_metrics(first: Run, part: Run, number: int) -> dict[str, Any]:
    """The metrics of this round, some of them measured with the models of the first round."""
    trained, evolved, collected = best_so_far(part), part.need("evolve"), part.need("collect")
    data = rollouts_of(collected)
    held_out = dict(_held_out(data, part.config))
    row: dict[str, Any] = {
        "env_steps": env_steps(part),
        "validation": evolved.metrics["best_validation"],
        "validation_se": evolved.metrics["best_validation_se"],
        "driven": collected.metrics["score"],  # by the collecting policy, with its noise
        "dream": dream_score(trained),
        "coverage": coverage(collected, trained.game, _first_grid(first)),
        "nll": {f"round-{other:03}": held_out_nll(trained, data, episodes) for other, episodes in held_out.items()},
    }
    if number in held_out:  # the first round's M on this round's rollouts
        of_first = held_out_nll(best_so_far(first), data, held_out[number]) if number else row["nll"]["round-000"]
        row["nll_before"] = of_first
    return row


def dream_score(trained: Trained) -> dict[str, float]:
    """C's score in dreams as long as the game. If it is far above the real score, C exploits errors of M."""
    dream = Dream(trained.world(), trained.controller)
    returns = mean_of(dream.rollout(trained.theta[None], derive("round", "dream"), DREAMS)[0][0])
    return {"mean": returns.mean, "se": returns.error}


def _first_grid(first: Run) -> LatentGrid:
    """The latent space of the first round, in which coverage is counted for all rounds."""
    return LatentGrid.of(load_vision(first.need("vision")), first.need("latents"))


def _held_out(data: DataSet, config: Config) -> list[tuple[int, np.ndarray]]:
    """Held-out episodes by the round that they were collected in."""
    rounds = {uri: number for number, uri in enumerate(dict.fromkeys(file.storage.uri for file in data.files))}
    number_of = np.array([rounds[file.storage.uri] for file, _ in data.episodes])
    _, test = split(len(data.lengths), config.memory.held_out)
    found = [(number, test[number_of[test] == number][:HELD_OUT]) for number in rounds.values()]
    return [(number, episodes) for number, episodes in found if len(episodes)]


@torch.inference_mode()
def held_out_nll(trained: Trained, data: DataSet, episodes: np.ndarray) -> dict[str, float]:
    """M's NLL per dimension on these episodes, for z scaled to unit variance so that different V compare."""
    assert trained.memory is not None
    values, seen = [], []
    for episode in episodes:
        found = data.read(int(episode), ["frame", "action"])
        mu, logvar = encode_in_batches(trained.vision.encode, torch.from_numpy(found["frame"].copy()))  # (T, Z)
        generator = torch.Generator().manual_seed(derive("held out", int(episode)) % 2**63)
        z = draw(mu, logvar, torch.randn(mu.shape, generator=generator))
        a = torch.from_numpy(found["action"].copy())
        not_done = torch.zeros(1, len(z)) if trained.memory.previous_done else None
        prediction, _ = trained.memory(z[None], a[None], previous_done=not_done)
        values.append(float(nll(prediction, torch.roll(z, -1, dims=0)[None])[0, :-1].mean()))
        seen.append((mu, logvar))
    mu, logvar = (torch.cat(part) for part in zip(*seen, strict=True))
    scaled = mean_of([standardised(value, mu, logvar) for value in values])
    return {"mean": scaled.mean, "se": scaled.error}
