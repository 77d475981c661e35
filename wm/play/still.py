"""A picture of the page, made without a browser: for reports, as the image that links to the page."""

import cv2
import numpy as np
import torch

from wm.agents.trained import Trained
from wm.play.controls import controls_of
from wm.play.model import world_of
from wm.visuals.drawing import png

WIDTH, HEIGHT, EDGE, ROUND = 1200, 640, 40, 22  # pixels
PAPER, TRACK, BLUE = (18, 20, 23), (46, 51, 58), (118, 169, 255)  # of the page in the dark, as in wm.visuals.style
COLUMNS, REACH = 4, 3.0  # of the numbers of z, and the largest that is shown
SHIFT = 4  # OpenCV draws in sixteenths of a pixel


def still(trained: Trained, seed: int = 1, steps: int = 80) -> bytes:
    """The dream after so many steps of C, with its action and z as bars; a PNG."""
    z, a = _dreamt(trained, seed, steps)
    with torch.no_grad():
        frame = (255 * trained.vision.decode(z[None])[0]).round().byte().numpy()
    side = HEIGHT - 2 * EDGE
    picture = np.full((HEIGHT, WIDTH, 3), PAPER, np.uint8)
    shown = cv2.resize(frame, (side, side), interpolation=cv2.INTER_CUBIC)
    mask = _rounded(side)[..., None]
    corner = picture[EDGE : EDGE + side, EDGE : EDGE + side]
    corner[:] = (mask * shown + (1 - mask) * corner).round()
    _play_sign(picture, EDGE + side // 2, EDGE + side // 2)
    left, right = 2 * EDGE + side, WIDTH - EDGE
    numbers = controls_of(trained.game).numbers
    for index, (number, value) in enumerate(zip(numbers, a.tolist(), strict=True)):
        at = EDGE + 10 + 30 * index
        share, zero = (_share(x, number.low, number.high) for x in (value, 0))
        _bar(picture, left, right, at, share, zero)
    top = EDGE + 30 * len(numbers) + 30
    rows, step = -(-len(z) // COLUMNS), (right - left + 24) / COLUMNS
    for index, value in enumerate(z.tolist()):
        row, column = divmod(index, COLUMNS)
        x, y = left + column * step, top + (HEIGHT - EDGE - top - 10) * row / max(1, rows - 1)
        _bar(picture, x, x + step - 24, y, _share(value, -REACH, REACH), 0.5, thin=True)
    return png(picture)


@torch.inference_mode()
def _dreamt(trained: Trained, seed: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """z (Z,) and the last action (A,); a dream that ends early is shown at its last step."""
    world, rng = world_of(trained), np.random.default_rng(seed)
    s, theta = world.batch(1), trained.controller.tensor(trained.theta)
    s.state[0] = torch.from_numpy(world.begin(rng))
    for _ in range(steps):
        features = s.state[:, : trained.controller.features_size].unsqueeze(1)  # (1, 1, F)
        s.a.copy_(world.squash(trained.controller.act(theta, features).squeeze(1)))
        world.step(s, torch.from_numpy(world.noise(rng, 1)))
        if s.done.item():
            break
    return s.z[0].clone(), s.a[0].clone()


def _share(value: float, low: float, high: float) -> float:
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _bar(
    picture: np.ndarray, left: float, right: float, y: float, share: float, zero: float, thin: bool = False
) -> None:
    """A track from left to right, filled between where zero and where the value is."""
    track, fill = (1.5, 4.0) if thin else (6.0, 6.0)  # half of their heights
    ends = (left + zero * (right - left), left + share * (right - left))
    _box(picture, left, right, y, track, TRACK)
    _box(picture, min(ends), max(ends), y, fill, BLUE)


def _box(picture: np.ndarray, left: float, right: float, y: float, half: float, colour: tuple[int, int, int]) -> None:
    corners = np.array([[left, y - half], [right, y - half], [right, y + half], [left, y + half]])
    cv2.fillPoly(picture, [np.rint(corners * 2**SHIFT).astype(np.int32)], colour, cv2.LINE_AA, SHIFT)


def _rounded(side: int) -> np.ndarray:
    """How much of each pixel of the picture is seen: its corners are round. (side, side) on [0, 1]"""
    mask = np.zeros((4 * side, 4 * side), np.uint8)
    r = 4 * ROUND
    cv2.rectangle(mask, (r, 0), (4 * side - r, 4 * side), 255, -1)
    cv2.rectangle(mask, (0, r), (4 * side, 4 * side - r), 255, -1)
    for x in (r, 4 * side - r):
        for y in (r, 4 * side - r):
            cv2.circle(mask, (x, y), r, 255, -1)
    return cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _play_sign(picture: np.ndarray, x: int, y: int) -> None:
    """A triangle in a disc: there is something to play here."""
    over = picture.copy()
    cv2.circle(over, (x, y), 54, PAPER, -1, cv2.LINE_AA)
    cv2.addWeighted(over, 0.62, picture, 0.38, 0, dst=picture)
    triangle = np.array([[x - 15, y - 24], [x - 15, y + 24], [x + 27, y]])
    cv2.fillPoly(picture, [np.rint(triangle * 2**SHIFT).astype(np.int32)], (241, 243, 245), cv2.LINE_AA, SHIFT)
