"""Runs side by side, in numbers. Those that differ in the seed of their evolution alone are one group."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm.config.fields import of_kind
from wm.envs import load
from wm.envs.rollout import ScriptedPolicy, play
from wm.errors import UserError
from wm.experiments import vision_metrics as measures
from wm.models.vision import encode_in_batches, kl_divergence
from wm.report.run_view import RunView
from wm.runs.datasets import latents_of
from wm.runs.run import Run
from wm.runs.shards import DataSet
from wm.seeds import generator, training_episode
from wm.statistics import mean_of

DRIVES, DRIVE_STEPS, EVERY = 12, 300, 3  # fresh episodes for the probes, their length, and which of their steps count
LATENTS = 64  # episodes that the scale of z is measured on
SAMPLES = 16  # of the prior
UNUSED = ("vision.gamma", "vision.gan-ramp")  # by a VAE


@dataclass(frozen=True)
class Drives:
    """Frames of fresh episodes with what the simulator knew when it drew them."""

    frames: Tensor  # (B, 64, 64, 3) uint8
    known: dict[str, Tensor]  # (B,) each; NaN where a frame doesn't show it
    held_out: Tensor  # (B,) bool; the probes are fitted to the other episodes


class Group:
    """Runs that differ in the seed of their evolution alone, and so share V and M."""

    def __init__(self, runs: Sequence[Run]):
        self.runs = [RunView(run) for run in runs]
        self.first = self.runs[0]
        self.name = ""  # what sets it apart, see `apart`

    @cached_property
    def samples(self) -> Tensor:
        """What V makes of z drawn from the prior, (B, 64, 64, 3); the same z for all groups."""
        z = torch.randn(SAMPLES, self.first.vision.z, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            return self.first.vision.decode(z)

    def numbers(self, drives: Drives) -> dict[str, float]:
        """All measures that the runs are far enough for."""
        found = self._vision() | self._probes(drives) | self._memory() | self._controller()
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _vision(self) -> dict[str, float]:
        seen = self.first.seen
        x = seen.frames / 255
        return {
            "sharpness": measures.sharpness(x, seen.decoded),
            "sharpness_of_samples": measures.sharpness(x, self.samples),
            "ssim": measures.ssim(x, seen.decoded),
            "mse": float((x - seen.decoded).square().mean()),
            **load(self.first.config.game).measure(seen.frames, seen.decoded),
            "kl": float(kl_divergence(seen.mu, seen.logvar).sum(dim=1).mean()),
            "active_units": measures.active_units(seen.mu),
            "vision_steps": self.first.need("vision").metrics["steps"],
        }

    def _probes(self, drives: Drives) -> dict[str, float]:
        with torch.no_grad():
            mu, _ = encode_in_batches(self.first.vision.encode, drives.frames)  # (B, Z)
        test = drives.held_out
        return {
            f"probe_{name}": measures.probe(mu[~test], y[~test], mu[test], y[test]) for name, y in drives.known.items()
        }

    def _memory(self) -> dict[str, float]:
        made = self.first.manifest("memory")
        if made is None:
            return {}
        mu, logvar = _latents(latents_of(self.first.need("latents")))
        names = {"nll": "held_out_nll", "nll_last_latent": "nll_last_latent"}
        scaled = {
            name: measures.standardised(made.metrics[metric], mu, logvar)
            for name, metric in names.items()
            if metric in made.metrics
        }
        return scaled | {name: made.metrics[name] for name in ("reward_correlation",) if name in made.metrics}

    def _controller(self) -> dict[str, float]:
        scores = [made.metrics for run in self.runs if (made := run.manifest("score")) is not None]
        if not scores:
            return {}
        mean, error = over_seeds([one["score"] for one in scores], scores[0]["se"])
        return {"score": mean, "score_se": error, "seeds": len(scores)}

    def curve(self) -> list[tuple[float, float, float]]:
        """(generation, validation, error) as far as all its seeds have come."""
        rows: dict[int, list[dict[str, Any]]] = {}
        for run in self.runs:
            for row in run.stages["evolve"].rows(run.run):
                if "validation" in row:
                    rows.setdefault(int(row["generation"]), []).append(row)
        whole = {number: found for number, found in sorted(rows.items()) if len(found) == len(self.runs)}
        return [
            (number, *over_seeds([row["validation"] for row in found], found[0]["validation_se"]))
            for number, found in whole.items()
        ]


def over_seeds(values: Sequence[float], alone: float) -> tuple[float, float]:
    """Mean and standard error over seeds; for a single seed, its error over episodes (`alone`)."""
    found = mean_of(values)
    return found.mean, found.error if len(values) > 1 else alone


def groups(runs: Sequence[Run]) -> list[Group]:
    """In the order in which they were named."""
    together: dict[str, list[Run]] = {}
    for run in runs:
        run.config.check()
        key = repr(_fields(run))
        if any(other.uri == run.uri for other in together.get(key, [])):
            raise UserError(f"{run.uri} is named twice: name each run once")
        together.setdefault(key, []).append(run)
    found = [Group(members) for members in together.values()]
    _refuse_other_frames(found)
    for group, name in zip(found, apart([_fields(members[0]) for members in together.values()]), strict=True):
        group.name = name
    return found


def _fields(run: Run) -> dict[str, Any]:
    """What makes a run what it is, but for the seed of its evolution and how often it was scored."""
    config = replace(run.config, evolve=replace(run.config.evolve, seed=0), score=type(run.config.score)())
    fields = of_kind(config, "bits", "extent")
    if config.vision.kind == "vae":
        fields = {name: value for name, value in fields.items() if name not in UNUSED}
    return fields


def apart(fields: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each: the flags that are not the same for all."""
    every = dict.fromkeys(name for one in fields for name in one)
    differ = [name for name in every if any(one.get(name) != fields[0].get(name) for one in fields)]
    names = [" ".join(f"--{name} {one[name]}" for name in differ if one.get(name, "") != "") for one in fields]
    return [name or "as they are" for name in names]


def _refuse_other_frames(found: Sequence[Group]) -> None:
    first = found[0].first
    for group in found:
        for run in group.runs:
            same = run.need("collect").digest == first.need("collect").digest
            if not same or run.config.vision.held_out != first.config.vision.held_out:
                raise UserError(
                    f"{run.run.uri} and {first.run.uri} hold out other frames: compare runs with the same rollouts"
                    " (--base) and the same --vision.held-out"
                )


def fresh_drives(found: RunView, count: int = DRIVES, steps: int = DRIVE_STEPS) -> Drives:
    """Random driving that no training has seen; one episode in three is kept from the probes' fit."""
    game, policy = load(found.config.game), found.config.collect.policy
    steps = min(steps, game.max_steps)
    environments = [game.make() for _ in range(count)]
    scripts = [game.explore(policy, steps, generator("compare", number)) for number in range(count)]
    seeds = [training_episode("compare", number) for number in range(count)]
    watched = _Watched(ScriptedPolicy(np.stack(scripts)), lambda episode: game.state(environments[episode]))
    play(environments, seeds, watched, steps)
    for environment in environments:
        environment.close()
    known = {name: torch.tensor([row[name] for row in watched.known]) for name in watched.known[0]}
    episodes = torch.tensor(watched.episodes)
    return Drives(torch.from_numpy(np.stack(watched.frames)), known, episodes % 3 == 0)


class _Watched:
    """A policy; what it was shown is kept, with what the simulator knew at that moment."""

    def __init__(self, policy: ScriptedPolicy, state: Any):
        self.policy, self.state, self.step = policy, state, 0
        self.frames: list[np.ndarray] = []
        self.known: list[dict[str, float]] = []
        self.episodes: list[int] = []

    def act(self, frames: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        if self.step % EVERY == 0:
            for frame, episode in zip(frames, episodes.tolist(), strict=True):
                self.frames.append(frame.copy())
                self.known.append(self.state(episode))
                self.episodes.append(episode)
        self.step += 1
        return self.policy.act(frames, episodes)


def _latents(data: DataSet) -> tuple[Tensor, Tensor]:
    """mu and logvar (B, Z) of some episodes, evenly chosen."""
    count = len(data.lengths)
    chosen = np.linspace(0, count - 1, min(LATENTS, count)).astype(int)
    parts = [data.read(int(episode), ("mu", "logvar")) for episode in chosen]
    mu, logvar = (torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in ("mu", "logvar"))
    return mu, logvar
