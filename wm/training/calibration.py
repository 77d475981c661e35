"""Whether M's word on the end of an episode can be trusted: does it rank well, and do its odds come true?"""

from itertools import pairwise

import torch
from torch import Tensor

# Ends are rare, one step in hundreds, so the bins are about evenly wide on a logarithmic scale.
EDGES = (0.0, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def auc(logit: Tensor, happened: Tensor) -> float:
    """The chance that a step that was an end was given higher odds than one that wasn't; 0.5 is a guess. Both (N,)."""
    assert logit.shape == happened.shape, (logit.shape, happened.shape)
    positive = happened > 0
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return 0.5
    values, place = logit.double().unique(return_inverse=True)  # ties share their mean rank
    size = torch.bincount(place, minlength=len(values)).double()
    rank = (size.cumsum(0) - (size - 1) / 2)[place]  # (N,), from 1
    return float((rank[positive].sum() - count * (count + 1) / 2) / (count * others))


def reliability(probability: Tensor, happened: Tensor) -> list[dict[str, float]]:
    """Of the steps in each bin of predicted probability (N,): how often an end was expected, and how often it came."""
    probability, happened = probability.double(), (happened > 0).double()
    rows = []
    bins = torch.bucketize(probability, torch.tensor(EDGES[1:-1], dtype=torch.float64, device=probability.device))
    for index, (low, high) in enumerate(pairwise(EDGES)):
        inside = bins == index
        if count := int(inside.sum()):
            expected, came = float(probability[inside].mean()), float(happened[inside].mean())
            rows.append({"from": low, "to": high, "steps": count, "expected": expected, "happened": came})
    return rows
