"""What moves: how much of it reconstructions show, and its weight in V's loss."""

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from wm.models.vision import VAE
from wm.training.motion import ChangeWeights, motion_shown


def walking(steps: int = 20) -> Tensor:
    """A white square of 4 x 4 pixels that walks over a grey picture. (T, 64, 64, 3)"""
    frames = torch.full((steps, 64, 64, 3), 90, dtype=torch.uint8)
    for step in range(steps):
        frames[step, 30:34, 3 * step : 3 * step + 4] = 255
    return frames


def test_a_v_that_leaves_out_what_moves_is_found_out() -> None:
    frames = walking()
    before, after = frames[:-4], frames[4:]
    assert motion_shown(lambda x: x.float() / 255, before, after) == pytest.approx(1)
    mean = frames.float().mean(dim=0) / 255
    blind = motion_shown(lambda x: mean.expand(len(x), -1, -1, -1), before, after)
    assert blind == pytest.approx(0, abs=1e-6)
    # Its error is small all the same: a thousandth of a grey picture's.
    assert float(((mean - frames.float() / 255) ** 2).mean()) < 0.002
    half = motion_shown(lambda x: 0.5 * x.float() / 255, before, after)
    assert half == pytest.approx(0.75)  # half of the change is missing, and errors are squared
    assert motion_shown(lambda x: x.float() / 255, before, before) is None


class Episodes:
    """Two episodes: the ground of the second one is white, and it stands still in both."""

    lengths = np.array([20, 20])

    def read_all(self, episodes: Iterable[int], columns: list[str]) -> Iterator[dict[str, np.ndarray]]:
        for episode in episodes:
            frames = walking().numpy()
            frames[:, 50:] = 255 * episode
            yield {"frame": frames}


def test_what_moves_weighs_more() -> None:
    weights = ChangeWeights(Episodes(), 2.0, "cpu")  # type: ignore[arg-type]
    (first,), (second,) = ([read["frame"] for read in Episodes().read_all([episode], [])] for episode in (0, 1))
    frames = torch.from_numpy(np.concatenate([first, second]))
    weight = weights(frames, torch.tensor([0] * 20 + [1] * 20))
    assert weight.shape == (40, 64, 64, 1)
    assert float(weight.mean()) == pytest.approx(3.0, rel=0.1)
    assert float(weight[0, 0, 0, 0]) == pytest.approx(1.0, abs=0.1)
    assert float(weight[25, 60, 30, 0]) == pytest.approx(1.0, abs=0.1)  # differs between episodes, but does not move
    assert float(weight[5, 31, 16, 0]) > 100  # the square
    assert float(weight[9, 31, 16, 0]) < 50  # where it was before


def test_the_weight_is_that_of_the_squared_error() -> None:
    torch.manual_seed(1)
    model, frames = VAE(8), torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8))
    noise = torch.zeros(2, 8)
    plain = model.losses(frames, noise)
    ones = model.losses(frames, noise, weight=torch.ones(2, 64, 64, 1))
    doubled = model.losses(frames, noise, weight=torch.full((2, 64, 64, 1), 2.0))
    torch.testing.assert_close(ones["loss"], plain["loss"])
    torch.testing.assert_close(doubled["reconstruction"], 2 * plain["reconstruction"])
