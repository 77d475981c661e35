"""A C fitted to another V and M acts as it did with its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wm.agents.artifacts import load_models
from wm.agents.trained import of_run
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.envs import load
from wm.errors import UserError
from wm.evolution.refit import refitted
from wm.models.agent import Models
from wm.models.memory import MDNRNN
from wm.pool import LocalPool
from wm.runs.datasets import own_rollouts
from wm.runs.run import Run, start_run
from wm.runs.shards import DataSet
from wm.stages.evolve import evolve
from wm.stages.memory import train_memory
from wm.stages.warm_start import first_distribution

TINY = PRESETS["tiny"]


def shuffled(memory: MDNRNN, order: torch.Tensor) -> MDNRNN:
    """The same M with its units in another order."""
    other = MDNRNN(z=memory.z, actions=memory.actions, hidden=memory.hidden, mixtures=memory.mixtures, reward=True)
    gates = memory.gates.weight.unflatten(0, (4, -1))[:, order].flatten(0, 1)
    heads = memory.heads.weight[:, order]
    with torch.no_grad():
        other.gates.weight.copy_(torch.cat((gates[:, : memory.inputs], gates[:, memory.inputs :][:, order]), dim=1))
        other.gates.bias.copy_(memory.gates.bias.unflatten(0, (4, -1))[:, order].flatten())
        other.heads.weight.copy_(heads)
        other.heads.bias.copy_(memory.heads.bias)
    return other.eval()


def played(data: DataSet, episode: int) -> tuple[torch.Tensor, torch.Tensor]:
    found = data.read(episode, ["frame", "action"])
    return torch.from_numpy(found["frame"].copy()), torch.from_numpy(found["action"].copy())


@torch.inference_mode()
def actions_of(models: Models, theta: np.ndarray, data: DataSet, episode: int = 0) -> torch.Tensor:
    """C's actions before the squash. (T, A)"""
    inputs = models.inputs_of_c(*played(data, episode))
    return models.controller.act(torch.from_numpy(theta)[None], inputs[None])[0]


@pytest.mark.parametrize("bias", [True, False])
def test_a_refitted_c_acts_as_before(tiny: Run, bias: bool) -> None:
    trained, _ = load_models(tiny)
    assert trained.memory is not None
    data = own_rollouts(tiny.need("collect"))
    shape = replace(trained.controller, bias=bias)
    theta = np.random.default_rng(1).normal(size=shape.size)
    before = replace(trained, controller=shape)
    np.testing.assert_allclose(refitted(theta, before, before, data), theta)  # nothing to fit
    now = replace(before, memory=shuffled(trained.memory, torch.randperm(32, generator=torch.manual_seed(1))))
    expected = actions_of(before, theta, data)
    unfitted, fitted = (
        float((actions_of(now, one, data) - expected).square().mean())
        for one in (theta, refitted(theta, before, now, data))
    )
    assert unfitted > 0.01
    assert fitted < unfitted / 20
    z_only = replace(now, controller=replace(shape, inputs="z"))
    assert refitted(theta, before, z_only, data).size == z_only.controller.size
    with pytest.raises(UserError, match="no rollouts to fit C on"):
        refitted(theta, before, now, DataSet([]))


@torch.inference_mode()
def test_the_inputs_of_c_contain_h_before_the_step(tiny: Run) -> None:
    trained, _ = load_models(tiny)
    data = own_rollouts(tiny.need("collect"))
    frames, actions = played(data, 0)
    assert trained.memory is not None
    seen = trained.inputs_of_c(frames, actions)
    z = trained.vision.encode(frames)[0]
    _, state = trained.memory(z[None, :-1], actions[None, :-1])
    assert not seen[0, 32:].any()  # h is 0 at first
    np.testing.assert_allclose(seen[:, :32], z, atol=1e-5)
    np.testing.assert_allclose(seen[-1, 32:], state.h[0], atol=1e-5)


def test_evolution_starts_from_the_refitted_c(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    def first_mean(config: Config, run: Run) -> np.ndarray:
        part = Run(run.storage, config, run.preset, run.base)
        return first_distribution(part, load(config.game), load_models(part)[0])[0].mean

    section = replace(TINY.evolve, init=tiny.uri, init_sigma=0.01, refit=True, generations=1, validation_episodes=1)
    theta = of_run(tiny).theta
    np.testing.assert_array_equal(first_mean(replace(TINY, evolve=section), tiny), theta)  # V and M are the same
    config = replace(TINY, evolve=section, memory=replace(TINY.memory, init=tiny.uri, learning_rate=0.1))
    run = start_run(str(tmp_path), "tiny", config, base=tiny.uri)
    train_memory(run, pool)
    evolve(run, pool)
    before, now = (load_models(one)[0] for one in (tiny, run))
    data = own_rollouts(tiny.need("collect"))
    expected = actions_of(before, theta, data)
    unfitted, fitted = (
        (actions_of(now, one, data) - expected).square().mean() for one in (theta, first_mean(config, run))
    )
    assert fitted < unfitted / 4
