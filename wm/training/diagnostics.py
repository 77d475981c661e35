"""Diagnostics of M: baselines for its likelihood, and the calibration of its predicted ends.

The baselines predict the next z without dynamics: "last_latent" with N(z[t], sigma), "gaussian" with N(mu, sigma). Both
have one sigma per dimension and are fitted to the training episodes by maximum likelihood.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Baselines:
    """The fitted baselines, in fp64."""

    change: Tensor  # (Z,), variance of z[t+1] around z[t]
    mu: Tensor  # (Z,)
    variance: Tensor  # (Z,), of z around mu

    def nll(self, z: Tensor) -> dict[str, Tensor]:
        """Negative log-likelihood (..., T - 1, Z) of z[1:], given z (..., T, Z)."""
        now, after = z[..., :-1, :].double(), z[..., 1:, :].double()
        return {
            "last_latent": _gaussian_nll(after - now, self.change),
            "gaussian": _gaussian_nll(after - self.mu, self.variance),
        }


def fit(episodes: Iterable[tuple[Tensor, Tensor]]) -> Baselines:
    """Fit both to (mu, logvar) of whole episodes, each (T, Z), in one pass.

    The expectation over samples of z is exact: that of (z[t+1] - z[t])^2 is the squared difference of the means plus
    both variances.
    """
    steps = changes = 0
    sums: list[Tensor | float] = [0.0, 0.0, 0.0]
    for mu, logvar in episodes:
        mu, variance = mu.double(), logvar.double().exp()
        squares = (mu[1:] - mu[:-1]) ** 2 + variance[1:] + variance[:-1]  # (T - 1, Z)
        found = (squares.sum(dim=0), mu.sum(dim=0), (mu**2 + variance).sum(dim=0))  # (Z,) each
        sums = [total + more for total, more in zip(sums, found, strict=True)]
        steps, changes = steps + len(mu), changes + len(mu) - 1
    assert steps, "no episodes"
    change, mean, square = (torch.as_tensor(total) for total in sums)
    mean = mean / steps
    return Baselines(change / max(changes, 1), mean, square / steps - mean**2)


def baselines(
    training: Iterable[tuple[Tensor, Tensor]],  # mu, logvar of each episode, (T, Z)
    held: Iterable[tuple[Tensor, Tensor, float]],  # z (B, T, Z), next_mask (B, T) and weight, as in M's evaluation
) -> dict[str, float]:
    """Held-out NLL per dimension of both, averaged like M's: over the steps of a batch, then over batches."""
    fitted = fit(training)
    sums, total = {"last_latent": 0.0, "gaussian": 0.0}, 0.0
    for z, next_mask, weight in held:
        counted = next_mask[:, :-1] > 0  # (B, T - 1): the last step has no successor
        for name, nll in fitted.nll(z).items():
            sums[name] += weight * float(nll[counted].sum()) / max(1, nll[counted].numel())
        total += weight
    return {name: value / total for name, value in sums.items()}


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation over all elements; 0 if either is constant."""
    assert x.shape == y.shape, (x.shape, y.shape)
    if x.numel() < 2:
        return 0.0
    x, y = (v.flatten().double() - v.double().mean() for v in (x, y))
    norms = float(x.norm() * y.norm())
    return float(x @ y) / norms if norms > 0 else 0.0


def _gaussian_nll(deviation: Tensor, variance: Tensor) -> Tensor:
    return 0.5 * (math.log(2 * math.pi) + variance.log() + deviation**2 / variance)


# Ends are rare, one step in hundreds, so the bins have similar widths on a logarithmic scale.
EDGES = (0.0, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def auc(logit: Tensor, happened: Tensor) -> float:
    """Probability that an end has a higher logit than another step; 0.5 is a random guess. Both are (N,)."""
    assert logit.shape == happened.shape, (logit.shape, happened.shape)
    positive = happened > 0
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return 0.5
    values, index = logit.double().unique(return_inverse=True)  # ties share their mean rank
    size = torch.bincount(index, minlength=len(values)).double()
    rank = (size.cumsum(0) - (size - 1) / 2)[index]  # (N,), from 1
    return float((rank[positive].sum() - count * (count + 1) / 2) / (count * others))


def reliability(probability: Tensor, happened: Tensor) -> list[dict[str, float]]:
    """For each bin of predicted probability (N,): the mean prediction and the frequency of ends."""
    probability, happened = probability.double(), (happened > 0).double()
    rows = []
    bins = torch.bucketize(probability, torch.tensor(EDGES[1:-1], dtype=torch.float64, device=probability.device))
    for index, (low, high) in enumerate(pairwise(EDGES)):
        inside = bins == index
        if count := int(inside.sum()):
            expected, frequency = float(probability[inside].mean()), float(happened[inside].mean())
            rows.append({"from": low, "to": high, "steps": count, "expected": expected, "happened": frequency})
    return rows
