"""C fitted to another V and M does what it did with those it was made for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wm.agents.trained import of_run
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.errors import UserError
from wm.evolution.refit import refitted
from wm.models.agent import Models
from wm.models.build import controller_of
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
def does(seeing: Models, theta: np.ndarray, data: DataSet, episode: int = 0) -> torch.Tensor:
    return seeing.controller.act(torch.from_numpy(theta)[None], seeing.seen(*played(data, episode))[None])[0]


@pytest.mark.parametrize("bias", [True, False])
def test_it_does_what_it_did(tiny: Run, bias: bool) -> None:
    trained = of_run(tiny)
    assert trained.memory is not None
    data = own_rollouts(tiny.need("collect"))
    shape = replace(trained.controller, bias=bias)
    theta = np.random.default_rng(1).normal(size=shape.size)
    before = Models(shape, trained.vision, trained.memory)
    np.testing.assert_allclose(refitted(theta, before, before, data), theta)  # nothing to mend
    now = replace(before, memory=shuffled(trained.memory, torch.randperm(32, generator=torch.manual_seed(1))))
    was = does(before, theta, data)
    lost, found = (
        float((does(now, one, data) - was).square().mean()) for one in (theta, refitted(theta, before, now, data))
    )
    assert lost > 0.01
    assert found < lost / 20
    alone = replace(now, controller=replace(shape, inputs="z"))
    assert refitted(theta, before, alone, data).size == alone.controller.size
    with pytest.raises(UserError, match="no rollouts to fit C on"):
        refitted(theta, before, now, DataSet([]))


@torch.inference_mode()
def test_it_sees_h_as_of_before_the_step(tiny: Run) -> None:
    trained = of_run(tiny)
    data = own_rollouts(tiny.need("collect"))
    frames, actions = played(data, 0)
    assert trained.memory is not None
    seen = Models(trained.controller, trained.vision, trained.memory).seen(frames, actions)
    z = trained.vision.encode(frames)[0]
    _, state = trained.memory(z[None, :-1], actions[None, :-1])
    assert not seen[0, 32:].any()  # h is empty at first
    np.testing.assert_allclose(seen[:, :32], z, atol=1e-5)
    np.testing.assert_allclose(seen[-1, 32:], state.h[0], atol=1e-5)


def test_evolution_begins_with_it(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    def begun(config: Config, run: Run) -> np.ndarray:
        return first_distribution(config, run, of_run(run).vision, of_run(run).memory)[0].mean

    section = replace(TINY.evolve, init=tiny.uri, init_sigma=0.01, refit=True, generations=1, validation_episodes=1)
    theta = of_run(tiny).theta
    np.testing.assert_array_equal(begun(replace(TINY, evolve=section), tiny), theta)  # the same V and M
    config = replace(TINY, evolve=section, memory=replace(TINY.memory, init=tiny.uri, learning_rate=0.1))
    run = start_run(str(tmp_path), "tiny", config, base=tiny.uri)
    train_memory(run, pool)
    evolve(run, pool)
    before, now = (Models(controller_of(config), of_run(one).vision, of_run(one).memory) for one in (tiny, run))
    data = own_rollouts(tiny.need("collect"))
    was = does(before, theta, data)
    lost, found = ((does(now, one, data) - was).square().mean() for one in (theta, begun(config, run)))
    assert found < lost / 4
