"""The calibration of M's predicted ends."""

import numpy as np
import pytest
import torch

from wm.training.diagnostics import EDGES, auc, reliability


def test_auc_is_the_probability_that_an_end_ranks_above_another_step() -> None:
    logit, happened = torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0.0, 0, 1, 1])
    assert auc(logit, happened) == pytest.approx(0.75)
    assert auc(logit, torch.tensor([0.0, 0, 0, 1])) == 1
    assert auc(-logit, torch.tensor([0.0, 0, 0, 1])) == 0
    assert auc(torch.zeros(4), happened) == 0.5  # ties count half
    assert auc(logit, torch.zeros(4)) == 0.5
    rng = np.random.default_rng(1)
    logit, happened = torch.from_numpy(rng.integers(0, 20, 300) / 2), torch.from_numpy(rng.random(300) < 0.1)
    ends, others = logit[happened], logit[~happened]
    wins = (ends[:, None] > others).double() + 0.5 * (ends[:, None] == others)
    assert auc(logit, happened.float()) == pytest.approx(float(wins.mean()))


def test_true_probabilities_are_reliable() -> None:
    rng = np.random.default_rng(1)
    probability = 10 ** rng.uniform(-3.5, 0, 200_000)
    happened = rng.random(200_000) < probability
    rows = reliability(torch.from_numpy(probability), torch.from_numpy(happened))
    assert sum(row["steps"] for row in rows) == 200_000
    for row in rows:
        assert row["from"] <= row["expected"] <= row["to"]
        assert row["happened"] == pytest.approx(row["expected"], rel=0.35)
    assert {row["from"] for row in rows} <= set(EDGES)


def test_empty_bins_are_left_out() -> None:
    rows = reliability(torch.tensor([0.5, 0.9, 1.0]), torch.tensor([0.0, 1, 1]))
    assert rows == [
        {"from": 0.3, "to": 1.0, "steps": 3, "expected": pytest.approx(0.8), "happened": pytest.approx(2 / 3)}
    ]
