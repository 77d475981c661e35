"""Metrics of V: sharpness, SSIM, active units, linear probes, and M's NLL for any scale of z."""

import math

import pytest
import torch
import torch.nn.functional as F

from wm.experiments.vision_metrics import active_units, probe, sharpness, ssim, standardised

torch.set_num_threads(1)  # faster for small tensors on a busy machine


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(4, 64, 64, 3, generator=torch.Generator().manual_seed(0))


def blurred(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x.permute(0, 3, 1, 2), 3, stride=1, padding=1).permute(0, 2, 3, 1)


def test_blur_reduces_sharpness(x: torch.Tensor) -> None:
    assert sharpness(x, x) == 1
    assert sharpness(x, blurred(x)) < 0.2
    assert sharpness(x, 2 * x) == pytest.approx(4)
    assert sharpness(torch.zeros_like(x), torch.zeros_like(x)) == 0


def test_ssim_is_1_for_equal_frames_and_falls_with_noise_and_blur(x: torch.Tensor) -> None:
    assert ssim(x, x) == pytest.approx(1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    values = [ssim(x, (x + size * noise).clamp(0, 1)) for size in (0.05, 0.2, 0.5)]
    assert 1 > values[0] > values[1] > values[2] > 0
    assert ssim(x, blurred(x)) < 0.8
    flat = torch.full_like(x, 0.5)
    assert ssim(flat, 0.8 * flat) == pytest.approx((2 * 0.5 * 0.4 + 1e-4) / (0.25 + 0.16 + 1e-4), rel=1e-4)


def test_active_units_vary_between_frames() -> None:
    mu = torch.randn(100, 5) * torch.tensor([1.0, 0.5, 0.2, 0.01, 0.0])
    assert active_units(mu) == 3


def test_a_probe_finds_linear_relations_only() -> None:
    torch.manual_seed(0)
    mu, test = torch.randn(400, 6), torch.randn(200, 6)
    weights = torch.randn(6)
    y, y_test = mu @ weights + 2, test @ weights + 2
    y[::3] = torch.nan
    assert probe(mu, y, test, y_test) > 0.99
    assert probe(mu, torch.randn(400), test, torch.randn(200)) < 0.1
    assert math.isnan(probe(mu, torch.full((400,), torch.nan), test, y_test))


def test_standardised_nll_does_not_depend_on_the_scale_of_z() -> None:
    torch.manual_seed(0)
    mu, logvar, scale = torch.randn(5000, 3), torch.full((5000, 3), -1.0), torch.tensor([10.0, 0.1, 3.0])

    def nll(mu: torch.Tensor, logvar: torch.Tensor) -> float:
        """NLL of a Gaussian with the variance of z."""
        return float((0.5 * (1 + math.log(2 * math.pi) + (mu.var(0) + logvar.exp().mean(0)).log())).mean())

    for m, v in ((mu, logvar), (mu * scale, logvar + 2 * scale.log())):
        assert standardised(nll(m, v), m, v) == pytest.approx(0.5 * (1 + math.log(2 * math.pi)), abs=1e-4)
