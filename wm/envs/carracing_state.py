"""What CarRacing's simulator knows of the car and a picture shows: how fast it is, where on the road, what comes."""

import math

import numpy as np
from gymnasium.envs.box2d.car_racing import TRACK_DETAIL_STEP, TRACK_WIDTH, CarRacing

AHEAD = 8  # tiles of road, about as far as the frame shows
SIGHT = 3 * TRACK_WIDTH  # from the road's middle; farther off, the frame may show no road


def state(env: CarRacing) -> dict[str, float]:
    """Speed (units a second), offset from the road's middle (units, right is positive), curvature of the road ahead
    (radians a unit, left is positive); the latter two are NaN where the road is out of sight.
    """
    assert env.car is not None
    hull = env.car.hull
    speed = math.hypot(*hull.linearVelocity)
    _, beta, x, y = np.array(
        env.track
    ).T  # (tiles,) each; beta is the direction in which the road runs, from the y axis
    dx, dy = hull.position[0] - x, hull.position[1] - y
    nearest = int((dx**2 + dy**2).argmin())
    offset = float(dx[nearest] * np.cos(beta[nearest]) + dy[nearest] * np.sin(beta[nearest]))
    if math.hypot(dx[nearest], dy[nearest]) > SIGHT:
        return {"speed": speed, "offset": math.nan, "curvature": math.nan}
    turned = beta[(nearest + AHEAD) % len(beta)] - beta[nearest]
    turned = (turned + math.pi) % (2 * math.pi) - math.pi  # the track is a ring
    return {"speed": speed, "offset": offset, "curvature": float(turned / (AHEAD * TRACK_DETAIL_STEP))}
