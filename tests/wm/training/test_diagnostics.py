"""Baselines for M's likelihood."""

import math

import pytest
import torch
from torch.distributions import Normal

from wm.models.vision import draw
from wm.training.diagnostics import baselines, correlation, fit

torch.set_num_threads(1)  # with small tensors, threads mostly wait for each other


def walks(episodes, steps, seed=0):
    """(mu, logvar) of random walks, each (T, Z)."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([0.1, 1.0, 3.0])
    noise = torch.randn(episodes, steps, 3, generator=generator)
    return [(1 + scale * walk, torch.full_like(walk, -2.0)) for walk in (0.3 * noise).cumsum(dim=1)]


def test_fit_is_the_limit_of_many_samples():
    episodes = walks(3, 40)
    noise = torch.randn(2000, 40, 3, generator=torch.Generator().manual_seed(1))
    many = [draw(mu, logvar, noise).double() for mu, logvar in episodes]  # (2000, T, Z) each
    changes = torch.cat([(z[:, 1:] - z[:, :-1]).flatten(end_dim=1) for z in many])
    everything = torch.cat([z.flatten(end_dim=1) for z in many])
    fitted = fit(episodes)
    torch.testing.assert_close(fitted.change, (changes**2).mean(dim=0), rtol=0.01, atol=0)
    torch.testing.assert_close(fitted.mu, everything.mean(dim=0), rtol=0.01, atol=0)
    torch.testing.assert_close(fitted.variance, everything.var(dim=0), rtol=0.01, atol=0)


def test_nll_matches_torchs_normal_where_the_mask_is_1():
    fitted = fit(walks(3, 40))
    z = torch.randn(2, 6, 3)
    next_mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]])  # the first episode continues
    now, after = z[:, :-1].double(), z[:, 1:].double()
    counted = next_mask[:, :-1].bool()
    expected = {
        "last_latent": -Normal(now, fitted.change.sqrt()).log_prob(after)[counted].mean(),
        "gaussian": -Normal(fitted.mu, fitted.variance.sqrt()).log_prob(after)[counted].mean(),
    }
    found = baselines(walks(3, 40), [(z, next_mask, 2.0)])
    assert found == pytest.approx({name: float(value) for name, value in expected.items()})


def test_batches_are_averaged_by_weight():
    training = walks(3, 40)
    a, b = ((torch.randn(2, 6, 3), torch.ones(2, 6)) for _ in range(2))
    of_a, of_b = baselines(training, [(*a, 1.0)]), baselines(training, [(*b, 1.0)])
    both = baselines(training, [(*a, 1.0), (*b, 3.0)])
    assert both == pytest.approx({name: (of_a[name] + 3 * of_b[name]) / 4 for name in both})


def test_the_last_latent_predicts_a_random_walk_better_than_its_mean():
    held = [(torch.stack([mu for mu, _ in walks(4, 200, seed=1)]), torch.ones(4, 200), 1.0)]
    found = baselines(walks(20, 200), held)
    assert found["last_latent"] < found["gaussian"] - 0.3


def test_sequences_without_a_next_step_give_finite_values():
    one_step = [(torch.zeros(1, 3), torch.zeros(1, 3))]
    found = baselines(one_step, [(torch.zeros(2, 1, 3), torch.zeros(2, 1), 1.0)])
    assert all(math.isfinite(value) for value in found.values())


def test_correlation():
    x = torch.randn(100)
    y = x + torch.randn(100)
    assert correlation(x, y) == pytest.approx(float(torch.corrcoef(torch.stack((x, y)))[0, 1]), abs=1e-6)
    assert correlation(x, -3 * x + 1) == pytest.approx(-1)
    assert correlation(x, torch.ones(100)) == 0
    assert correlation(x[:0], y[:0]) == 0
