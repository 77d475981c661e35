import numpy as np
import pytest
import torch

from wm.envs import load
from wm.envs.carracing_measures import car_and_road, car_mask, edge_mask


@pytest.fixture(scope="module")
def frames():
    """After the zoom of the first second, on the road. (5, 64, 64, 3)"""
    env, kept = load("car-racing").make(), []
    env.reset(seed=3)
    for step in range(76):
        frame = env.step(np.array([0.0, 0.2, 0.0], np.float32))[0]
        if step >= 55 and step % 5 == 0:
            kept.append(frame)
    return torch.from_numpy(np.stack(kept))


def test_the_car_is_a_few_red_pixels_where_it_stands(frames):
    mask = car_mask(frames / 255)
    assert (mask.sum(dim=(1, 2)) >= 8).all()
    assert (mask.sum(dim=(1, 2)) <= 40).all()
    assert not mask[:, :48].any()
    assert not mask[:, :, :29].any()
    assert not mask[:, :, 35:].any()


def test_the_edge_is_two_thin_lines_between_grey_and_green(frames):
    mask = edge_mask(frames / 255)
    share = mask.float().mean(dim=(1, 2))
    assert (share > 0.02).all()
    assert (share < 0.2).all()
    row = mask[0, 40]  # a straight road up the middle: nothing at its centre, nothing far out
    assert row.any()
    assert not row[32]
    assert not row[:8].any()
    assert not row[56:].any()


def test_what_goes_wrong_is_measured_where_it_is(frames):
    x = frames / 255
    assert car_and_road(frames, x) == {"mse": 0, "mse_car": 0, "mse_road_edge": 0}
    no_car = torch.where(car_mask(x)[..., None], torch.tensor(100 / 255), x)
    lost = car_and_road(frames, no_car)
    assert lost["mse_car"] > 0.02
    assert lost["mse"] < 0.001
    assert lost["mse_road_edge"] < 0.001
    blurred = torch.nn.functional.avg_pool2d(x.permute(0, 3, 1, 2), 5, 1, 2).permute(0, 2, 3, 1)
    blur = car_and_road(frames, blurred)
    assert blur["mse_road_edge"] > blur["mse"]


def test_frames_without_road_have_no_edge():
    grass = torch.tensor((100, 202, 100), dtype=torch.uint8).expand(2, 64, 64, 3)
    assert car_and_road(grass, grass / 255) == {"mse": 0}
