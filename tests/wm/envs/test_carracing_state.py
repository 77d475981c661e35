"""What the simulator knows: checked on a straight road that bends to the left, laid by hand."""

import math
from types import SimpleNamespace

import pytest
from gymnasium.envs.box2d.car_racing import TRACK_DETAIL_STEP

from wm.envs.carracing_state import AHEAD, state

BEND = 0.05  # radians from tile to tile


def at(x: float, y: float, velocity: tuple[float, float] = (0.0, 0.0)) -> dict[str, float]:
    """20 tiles straight north, then 20 that turn left; the car stands there."""
    track, here, beta = [], (0.0, 0.0), 0.0
    for tile in range(40):
        beta += BEND if tile >= 20 else 0.0
        track.append((0.0, beta, *here))
        step = TRACK_DETAIL_STEP
        here = (here[0] - step * math.sin(beta), here[1] + step * math.cos(beta))
    hull = SimpleNamespace(position=(x, y), linearVelocity=velocity)
    return state(SimpleNamespace(car=SimpleNamespace(hull=hull), track=track))  # type: ignore[arg-type]


def test_right_of_the_middle_is_positive() -> None:
    assert at(3, 10)["offset"] == pytest.approx(3)
    assert at(-2, 11)["offset"] == pytest.approx(-2)


def test_a_bend_to_the_left_is_positive_and_seen_ahead() -> None:
    step = TRACK_DETAIL_STEP
    assert at(0, 5 * step)["curvature"] == 0
    assert at(0, 15 * step)["curvature"] == pytest.approx(4 * BEND / (AHEAD * step))  # tiles 20 to 23 of 15 to 23
    assert at(0, 19 * step)["curvature"] == pytest.approx(BEND / step)


def test_speed_has_no_direction() -> None:
    assert at(0, 0, velocity=(-3, 4))["speed"] == 5


def test_where_no_road_is_in_sight_only_speed_is_known() -> None:
    found = at(100, 10, velocity=(1, 0))
    assert found["speed"] == 1
    assert math.isnan(found["offset"])
    assert math.isnan(found["curvature"])
