"""What must hold on a real GPU. tests/gpu runs these checks, and so does the benchmark of GPUs."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.benchmarks.gpu_data import Precision, dream, memory_learner, thetas, vision_learner
from wm.envs.anygym import AnyGame
from wm.models.device import prepare
from wm.models.memory import MDNRNN
from wm.training.learner import Learner

STEPS = 20
SMALL: dict[str, Any] = {"batch": 4, "sequence": 32}  # of M, so that the CPU is fast enough
LEARNERS: dict[str, Callable[..., Learner]] = {
    "V": lambda device, precision: vision_learner(device, precision, 8),
    "VAE-GAN": lambda device, precision: vision_learner(device, precision, 8, "vaegan"),
    "M": lambda device, precision: memory_learner(device, precision, **SMALL),
    "M of Doom": lambda device, precision: memory_learner(device, precision, "doom", **SMALL),
}
# Of the losses after 20 steps, relative to the CPU's in fp32.
TOLERANCE: dict[Precision, float] = {"float32": 0.02, "bfloat16": 0.1}
CASES = [(name, precision) for name in LEARNERS for precision in TOLERANCE]


def trained(learner: Learner, begin: int = 0, end: int = STEPS) -> dict[str, float]:
    """The mean losses of the last five of these steps."""
    found: list[dict[str, Tensor]] = []
    for number, batch in enumerate(itertools.islice(learner.batches(begin), end - begin), begin):
        found.append(learner.step(number, batch))
    return {name: float(torch.stack([losses[name] for losses in found[-5:]]).mean()) for name in found[0]}


def difference(one: Learner, other: Learner) -> list[str]:
    """Names of the tensors of the states that differ."""
    a, b = one.state(), other.state()
    return [name for name in a.keys() | b.keys() if not torch.equal(a[name], b[name])]


def training_agrees_with_the_cpu(name: str, precision: Precision, device: str) -> str:
    prepare(device)
    expected, found = (trained(LEARNERS[name](*how))["loss"] for how in (("cpu", "float32"), (device, precision)))
    error = abs(found - expected) / abs(expected)
    assert error < TOLERANCE[precision], f"loss {found} instead of {expected}"
    return f"relative difference {error:.1e}"


def training_repeats(name: str, precision: Precision, device: str) -> str:
    """Bit for bit, also if it is resumed halfway, and as a recorded graph as one kernel at a time."""
    prepare(device)
    whole, again, eager, first, resumed = (LEARNERS[name](device, precision) for _ in range(5))
    eager.recorded = False
    for learner in (whole, again, eager):
        trained(learner)
    trained(first, 0, STEPS // 2)
    resumed.load_state({key: value.cpu() for key, value in first.state().items()})
    trained(resumed, STEPS // 2)
    for what, other in (("repeated", again), ("resumed", resumed), ("not recorded", eager)):
        assert not difference(whole, other), f"{what}: other bits in {difference(whole, other)[:3]}"
    return "same bits"


def lstm_keeps_its_precision(device: str) -> str:
    prepare(device)
    memory = MDNRNN(z=4, actions=3, hidden=8).to(device)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        _, state = memory(torch.randn(2, 5, 4, device=device), 100 * torch.randn(2, 5, 3, device=device))
    assert state.h.dtype == state.c.dtype == torch.float32, (state.h.dtype, state.c.dtype)
    return "float32"


def dream_agrees_with_its_recording(device: str) -> str:
    prepare(device)
    made = dream(device)
    theta = thetas(made, 8)
    recorded = made.rollout(theta, 1, 16)
    for players in made.batches.values():
        players.graph = None
    assert all(np.array_equal(a, b) for a, b in zip(recorded, made.rollout(theta, 1, 16), strict=True))
    expected = dream("cpu").rollout(theta, 1, 16)[0]
    error = float(np.abs(recorded[0] - expected).max() / np.abs(expected).max())
    return f"same bits as without a graph; relative difference from the CPU {error:.1e}"


def box_actions_can_be_recorded(device: str) -> str:
    prepare(device)
    game: Any = AnyGame.__new__(AnyGame)  # without making an environment
    game.discrete, game.low, game.high = False, torch.tensor([-1.0, 0.0, 0.0]), torch.ones(3)
    made = dream(device, squash=game.squash)
    assert np.isfinite(made.rollout(thetas(made, 4), 1, 4)[0]).all()
    return "finite"
