"""Numbers of several runs for their comparison. Runs that differ only in the seed of the evolution form one group."""

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
from wm.evolution.validations import validated
from wm.experiments import vision_metrics as measures
from wm.models.vision import encode_in_batches, kl_divergence
from wm.report.run_view import RunView
from wm.runs.datasets import latents_of
from wm.runs.run import Run
from wm.runs.shards import DataSet
from wm.seeds import generator, training_episode
from wm.statistics import mean_of

DRIVES, DRIVE_STEPS, EVERY = 12, 300, 3  # new episodes for the probes, their length, and the interval between frames
LATENTS = 64  # episodes for the variance of z
SAMPLES = 16  # from the prior
VAEGAN_ONLY = ("vision.gamma", "vision.gan-ramp")


@dataclass(frozen=True)
class Drives:
    """Frames of new episodes with the state of the simulator at each."""

    frames: Tensor  # (B, 64, 64, 3) uint8
    state: dict[str, Tensor]  # (B,) each; NaN where the value is not visible in the frame
    held_out: Tensor  # (B,) bool; the probes are fitted to the other episodes


class Group:
    """Runs that differ only in the seed of the evolution and so share V and M."""

    def __init__(self, runs: Sequence[Run]):
        self.runs = [RunView(run) for run in runs]
        self.first = self.runs[0]
        self.name = ""  # its differing flags, set by `groups`

    @cached_property
    def samples(self) -> Tensor:
        """Decoded z from the prior, (B, 64, 64, 3); the same z for all groups."""
        z = torch.randn(SAMPLES, self.first.vision.z, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            return self.first.vision.decode(z)

    def numbers(self, drives: Drives) -> dict[str, float]:
        """All metrics whose stages are complete."""
        metrics = self._vision() | self._probes(drives) | self._memory() | self._controller()
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def _vision(self) -> dict[str, float]:
        encoded = self.first.encoded_frames
        x = encoded.frames / 255
        return {
            "sharpness": measures.sharpness(x, encoded.decoded),
            "sharpness_of_samples": measures.sharpness(x, self.samples),
            "ssim": measures.ssim(x, encoded.decoded),
            "mse": float((x - encoded.decoded).square().mean()),
            **load(self.first.config.game).measure(encoded.frames, encoded.decoded),
            "kl": float(kl_divergence(encoded.mu, encoded.logvar).sum(dim=1).mean()),
            "active_units": measures.active_units(encoded.mu),
            "vision_steps": self.first.need("vision").metrics["steps"],
        }

    def _probes(self, drives: Drives) -> dict[str, float]:
        with torch.no_grad():
            mu, _ = encode_in_batches(self.first.vision.encode, drives.frames)  # (B, Z)
        test = drives.held_out
        return {
            f"probe_{name}": measures.probe(mu[~test], y[~test], mu[test], y[test]) for name, y in drives.state.items()
        }

    def _memory(self) -> dict[str, float]:
        manifest = self.first.manifest("memory")
        if manifest is None:
            return {}
        mu, logvar = _latents(latents_of(self.first.need("latents")))
        names = {"nll": "held_out_nll", "nll_last_latent": "nll_last_latent"}
        scaled = {
            name: measures.standardised(manifest.metrics[metric], mu, logvar)
            for name, metric in names.items()
            if metric in manifest.metrics
        }
        return scaled | {name: manifest.metrics[name] for name in ("reward_correlation",) if name in manifest.metrics}

    def _controller(self) -> dict[str, float]:
        scores = [manifest.metrics for view in self.runs if (manifest := view.manifest("score")) is not None]
        if not scores:
            return {}
        mean, error = over_seeds([one["score"] for one in scores], scores[0]["se"])
        return {"score": mean, "score_se": error, "seeds": len(scores)}

    def curve(self) -> list[tuple[float, float, float]]:
        """(generation, validation, error) for the generations that all seeds have reached."""
        rows: dict[int, list[dict[str, Any]]] = {}
        for view in self.runs:
            for row in validated(view.stages["evolve"].rows(view.run)):
                rows.setdefault(int(row["generation"]), []).append(row)
        shared = {number: same for number, same in sorted(rows.items()) if len(same) == len(self.runs)}
        return [
            (number, *over_seeds([row["validation"] for row in same], same[0]["validation_se"]))
            for number, same in shared.items()
        ]


def over_seeds(values: Sequence[float], alone: float) -> tuple[float, float]:
    """Mean and standard error over seeds; for a single seed, its standard error over episodes (`alone`)."""
    mean = mean_of(values)
    return mean.mean, mean.error if len(values) > 1 else alone


def groups(runs: Sequence[Run]) -> list[Group]:
    """Group runs, in the order of their first members, and name each group by its differing flags."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        run.config.check()
        key = repr(_fields(run))
        if any(other.uri == run.uri for other in members.get(key, [])):
            raise UserError(f"{run.uri} is named twice: name each run once")
        members.setdefault(key, []).append(run)
    result = [Group(same) for same in members.values()]
    _check_held_out_frames(result)
    for group, name in zip(result, differing_flags([_fields(same[0]) for same in members.values()]), strict=True):
        group.name = name
    return result


def _fields(run: Run) -> dict[str, Any]:
    """The fields of the config, without the seed of the evolution and the test episodes."""
    config = replace(run.config, evolve=replace(run.config.evolve, seed=0), score=type(run.config.score)())
    fields = of_kind(config, "bits", "extent")
    if config.vision.kind == "vae":
        fields = {name: value for name, value in fields.items() if name not in VAEGAN_ONLY}
    return fields


def differing_flags(fields: Sequence[dict[str, Any]]) -> list[str]:
    """For each config, the flags that are not the same in all configs."""
    every = dict.fromkeys(name for one in fields for name in one)
    differ = [name for name in every if any(one.get(name) != fields[0].get(name) for one in fields)]
    names = [" ".join(f"--{name} {one[name]}" for name in differ if one.get(name, "") != "") for one in fields]
    return [name or "reference" for name in names]


def _check_held_out_frames(compared: Sequence[Group]) -> None:
    first = compared[0].first
    for group in compared:
        for view in group.runs:
            same = view.need("collect").digest == first.need("collect").digest
            if not same or view.config.vision.held_out != first.config.vision.held_out:
                raise UserError(
                    f"{view.run.uri} and {first.run.uri} hold out other frames: compare runs with the same rollouts"
                    " (--base) and the same --vision.held-out"
                )


def fresh_drives(view: RunView, count: int = DRIVES, steps: int = DRIVE_STEPS) -> Drives:
    """New episodes of the random policy, outside all training data; the probes hold out one in three."""
    game, policy = load(view.config.game), view.config.collect.policy
    steps = min(steps, game.max_steps)
    environments = [game.make() for _ in range(count)]
    scripts = [game.explore(policy, steps, generator("compare", number)) for number in range(count)]
    seeds = [training_episode("compare", number) for number in range(count)]
    recorder = _Recorder(ScriptedPolicy(np.stack(scripts)), lambda episode: game.state(environments[episode]))
    play(environments, seeds, recorder, steps)
    for environment in environments:
        environment.close()
    state = {name: torch.tensor([row[name] for row in recorder.states]) for name in recorder.states[0]}
    episodes = torch.tensor(recorder.episodes)
    return Drives(torch.from_numpy(np.stack(recorder.frames)), state, episodes % 3 == 0)


class _Recorder:
    """A policy that records its frames and the state of the simulator at each."""

    def __init__(self, policy: ScriptedPolicy, state: Any):
        self.policy, self.state, self.step = policy, state, 0
        self.frames: list[np.ndarray] = []
        self.states: list[dict[str, float]] = []
        self.episodes: list[int] = []

    def act(self, frames: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        if self.step % EVERY == 0:
            for frame, episode in zip(frames, episodes.tolist(), strict=True):
                self.frames.append(frame.copy())
                self.states.append(self.state(episode))
                self.episodes.append(episode)
        self.step += 1
        return self.policy.act(frames, episodes)


def _latents(data: DataSet) -> tuple[Tensor, Tensor]:
    """mu and logvar (B, Z) of evenly spaced episodes."""
    count = len(data.lengths)
    chosen = np.linspace(0, count - 1, min(LATENTS, count)).astype(int)
    parts = [data.read(int(episode), ("mu", "logvar")) for episode in chosen]
    mu, logvar = (torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in ("mu", "logvar"))
    return mu, logvar
