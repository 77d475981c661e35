"""Curiosity: surprise is M's NLL of the next z, belongs to the step that led to it, and changes no action."""

import math

import numpy as np
import pytest
import torch

from wm.models.agent import Agent
from wm.models.controller import Controller
from wm.models.curiosity import CuriousAgent
from wm.models.memory import MDNRNN, nll
from wm.models.vision import VAE, draw

torch.set_num_threads(1)  # with small tensors, threads mostly wait for each other

Z, H, A, STEPS = 6, 10, 2, 6
LENGTHS = [6, 3, 5]


@pytest.fixture(scope="module")
def vision() -> VAE:
    torch.manual_seed(1)
    return VAE(Z).eval()


def memory() -> MDNRNN:
    torch.manual_seed(2)
    return MDNRNN(z=Z, actions=A, hidden=H, mixtures=3).eval()


def trace_of(agent: Agent) -> list[tuple[np.ndarray, torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray]]:
    """Actions, z, logvar, actions as tensors and bonuses of all episodes at each step."""
    frames = np.random.default_rng(3).integers(0, 256, (STEPS, len(LENGTHS), 64, 64, 3), np.uint8)
    trace = []
    for step in range(STEPS):
        live = np.flatnonzero(np.array(LENGTHS) > step)
        agent.act(frames[step, live], live)
        bonus = agent.bonus.copy() if isinstance(agent, CuriousAgent) else np.zeros(0)
        trace.append((agent.a.numpy().copy(), agent.z.clone(), agent.logvar.clone(), agent.a.clone(), bonus))
    return trace


def curious(vision: VAE, m: MDNRNN, latent: str, kind: type = CuriousAgent, **more: float) -> Agent:
    controller = Controller("zh", Z, H, A)
    theta = np.random.default_rng(4).standard_normal((1, controller.size))
    return kind(vision, m, controller, theta, [0] * len(LENGTHS), torch.tanh, latent=latent, seed=5, **more)


@torch.no_grad()
def test_the_surprise_of_an_untrained_m_is_the_distance_of_z_from_0(vision: VAE) -> None:
    """All of its Gaussians have mean 0 and deviation 1, so its NLL per dimension is (log 2 pi + z^2) / 2."""
    m = memory()
    m.heads.weight.zero_()
    m.heads.bias.zero_()
    for _, z, _, _, bonus in trace_of(curious(vision, m, "z", weight=0.5, usual=1.2))[:3]:
        expected = (math.log(2 * math.pi) + z.double().square().mean(dim=1).numpy()) / 2
        np.testing.assert_allclose(bonus, 0.5 * (expected - 1.2), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("latent", ["z", "mu"])
def test_surprise_matches_ms_nll_on_whole_sequences(vision: VAE, latent: str) -> None:
    m = memory()
    agent = curious(vision, m, latent, weight=2.0, usual=0.0)
    noise = torch.Generator()
    noise.set_state(agent.sample_generator.get_state())
    trace = trace_of(agent)
    seen = torch.stack([z for _, z, _, _, _ in trace], dim=1)  # (E, T, Z)
    drawn = seen
    if latent == "mu":  # the NLL is that of a sample around C's z
        normal = torch.stack([torch.randn(z.shape, generator=noise) for _, z, _, _, _ in trace], dim=1)
        drawn = draw(seen, torch.stack([logvar for _, _, logvar, _, _ in trace], dim=1), normal)
    prediction, _ = m(seen, torch.stack([a for _, _, _, a, _ in trace], dim=1))
    found = np.stack([bonus for *_, bonus in trace], axis=1)  # (E, T)
    for episode, length in enumerate(LENGTHS):
        expected = nll(prediction, torch.roll(drawn, -1, dims=1))[episode, : length - 1].mean(dim=-1)
        np.testing.assert_allclose(found[episode, 1:length], 2 * expected.numpy(), atol=1e-4)


def test_curiosity_changes_no_action(vision: VAE) -> None:
    one, other = (
        trace_of(curious(vision, memory(), "z", kind, **more))
        for kind, more in ((Agent, {}), (CuriousAgent, {"weight": 1.0, "usual": 1.0}))
    )
    for (actions, *_), (expected, *_) in zip(one, other, strict=True):
        np.testing.assert_array_equal(actions, expected)
