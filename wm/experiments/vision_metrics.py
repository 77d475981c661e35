"""Metrics of V that are comparable between loss functions. Frames are (B, 64, 64, 3) on [0, 1]."""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian, in pixels
C1, C2 = 0.01**2, 0.03**2  # avoid division by zero, as published
ACTIVE = 0.01  # variance of mu above which a unit counts as active (Burda et al., 2016)
RIDGE = 1e-3  # of a linear probe, per frame


def sharpness(x: Tensor, decoded: Tensor) -> float:
    """Gradient energy (squared differences of neighbouring pixels) of the reconstructions relative to the frames."""
    return float(_energy(decoded) / _energy(x).clamp(min=1e-12))


def _energy(x: Tensor) -> Tensor:
    """Gradient energy per frame, the mean over B."""
    return (x.diff(dim=1).double().square().sum() + x.diff(dim=2).double().square().sum()) / len(x)


def ssim(x: Tensor, y: Tensor) -> float:
    """Structural similarity (Wang et al., 2004), mean over pixels, channels and frames."""
    line = torch.exp(-((torch.arange(WINDOW, dtype=x.dtype) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    window = (line[:, None] * line / line.sum() ** 2).expand(3, 1, WINDOW, WINDOW)
    x, y = x.permute(0, 3, 1, 2), y.permute(0, 3, 1, 2)  # (B, 3, 64, 64)

    def mean(v: Tensor) -> Tensor:
        return F.conv2d(v, window, groups=3)  # (B, 3, 54, 54)

    a, b = mean(x), mean(y)
    var_a, var_b, both = mean(x * x) - a * a, mean(y * y) - b * b, mean(x * y) - a * b
    similar = (2 * a * b + C1) * (2 * both + C2) / ((a * a + b * b + C1) * (var_a + var_b + C2))
    return float(similar.double().mean())


def active_units(mu: Tensor) -> int:
    """The number of dimensions of z that vary between frames. mu (B, Z)"""
    return int((mu.var(dim=0) > ACTIVE).sum())


def probe(mu: Tensor, y: Tensor, mu_test: Tensor, y_test: Tensor) -> float:
    """R squared on test frames of a linear prediction of y (B,) from mu (B, Z); NaN is left out."""
    (x, y), (x_test, y_test) = (
        (torch.cat((m, torch.ones(len(m), 1)), dim=1).double()[v.isfinite()], v.double()[v.isfinite()])
        for m, v in ((mu, y), (mu_test, y_test))
    )
    if len(y) < 2 or len(y_test) < 2:
        return float("nan")
    ridge = RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    ridge[-1, -1] = 0  # no penalty on the constant
    weights = torch.linalg.lstsq(x.T @ x + ridge, x.T @ y, driver="gelsd").solution
    left = (y_test - x_test @ weights).square().mean()
    return float(1 - left / (y_test - y.mean()).square().mean().clamp(min=1e-12))


def standardised(nll: float, mu: Tensor, logvar: Tensor) -> float:
    """M's NLL per dimension for z scaled to unit variance, since the scale of z differs between V.

    mu, logvar (B, Z) of many frames. The density of z / s is s times that of z.
    """
    variance = mu.double().var(dim=0) + logvar.double().exp().mean(dim=0)  # (Z,), of z as it is drawn
    return nll - float(variance.log().mean() / 2)
