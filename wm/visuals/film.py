"""Films: scenes as pictures, and pictures as one file that browsers play, made with OpenCV.

WebP and GIF are animated images for web pages. MP4 (VP9) is several times smaller and is encoded while it is written.
"""

import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest
from pathlib import Path

import cv2
import numpy as np

from wm.errors import UserError
from wm.visuals.drawing import write
from wm.visuals.replay import Scene

SUFFIXES = ("mp4", "webp", "gif")
WIDTH, GAP, LINE = 480, 6, 24  # pixels
NIGHT, LIGHT, DIM, GLOW = (18, 20, 24), (232, 234, 238), (150, 157, 168), (118, 169, 255)
SIDE = (WIDTH - 2 * GAP) // 3  # of small pictures
QUALITY = 60  # of WebP, out of 100


def composed(scene: Scene, room: int, height: int = 0, over: bool = False) -> np.ndarray:
    """The first view in large, up to `room` small views below it, and a line with the step and the score.

    The large view has its own proportions, or `height` pixels. If the episode is `over`, the picture says so.
    """
    (name, first), others = scene.views[0], scene.views[1:]
    large = _scaled(first, WIDTH, height or _height(first))
    if over:
        large = large // 2
        write(large, "ended", WIDTH // 2, len(large) // 2, size=0.8, colour=LIGHT, anchor=0.5)
    total = LINE + large.shape[0] + (LINE + SIDE + GAP if room else 0)
    picture = np.full((total + total % 2, WIDTH, 3), NIGHT, np.uint8)
    write(picture, f"{name}   step {scene.step}", GAP, LINE // 2, size=0.5, colour=LIGHT)
    write(picture, f"score {scene.score:.0f}", WIDTH - GAP, LINE // 2, size=0.5, colour=LIGHT, anchor=1)
    picture[LINE : LINE + len(large)] = large
    _gauges(picture, scene.a, WIDTH - GAP, LINE + len(large) - GAP)
    top = LINE + len(large)
    for index, (label, view) in enumerate(others[:room]):
        x = index * (SIDE + GAP)
        write(picture, label, x + SIDE // 2, top + LINE // 2, size=0.46, colour=DIM, anchor=0.5)
        picture[top + LINE : top + LINE + SIDE, x : x + SIDE] = _scaled(view, SIDE, SIDE)
    return picture


def films(scenes: Iterable[Scene], room: int) -> Iterator[np.ndarray]:
    return (composed(scene, room) for scene in scenes)


def side_by_side(dream: Iterable[Scene], game: Iterable[Scene]) -> Iterator[np.ndarray]:
    """A dream next to the game, in panes of one size: V squeezes the game's picture into a square frame.

    The shorter one stays on its last scene.
    """
    last: list[Scene] = []
    for pair in zip_longest(dream, game):
        over = [scene is None for scene in pair]
        last = [scene or before for scene, before in zip_longest(pair, last)]
        height = _height(last[1].views[0][1])
        left, right = (composed(scene, 0, height, end) for scene, end in zip(last, over, strict=True))
        yield np.hstack([left, np.full((len(left), GAP, 3), NIGHT, np.uint8), right])


def _height(picture: np.ndarray) -> int:
    """Of a picture scaled to the width of a film."""
    return round(WIDTH * picture.shape[0] / picture.shape[1])


def encoded(pictures: Iterable[np.ndarray], suffix: str, per_second: float) -> bytes:
    """A file of this type from RGB pictures of the same size."""
    frames = (cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) for picture in pictures)
    if suffix == "mp4":
        return _mp4(frames, per_second)
    if suffix not in SUFFIXES:
        raise UserError(f"films must be .{', .'.join(SUFFIXES)} files, got .{suffix}")
    animation = cv2.Animation()
    animation.frames = list(frames)
    animation.durations = [round(1000 / per_second)] * len(animation.frames)
    how = [cv2.IMWRITE_WEBP_QUALITY, QUALITY] if suffix == "webp" else []
    good, data = cv2.imencodeanimation(f".{suffix}", animation, how)
    assert good, suffix
    return data.tobytes()


def _mp4(frames: Iterator[np.ndarray], per_second: float) -> bytes:
    first = next(frames)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.mp4")
        codec = cv2.VideoWriter.fourcc(*"vp09")  # the codec in OpenCV's package that browsers play
        writer = cv2.VideoWriter(str(path), codec, per_second, first.shape[1::-1])
        if not writer.isOpened():
            raise UserError("OpenCV on this machine cannot write MP4: use a file name that ends in .webp or .gif")
        for frame in chain([first], frames):
            writer.write(frame)
        writer.release()
        return path.read_bytes()


def _scaled(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    shrinks = picture.shape[1] > width
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _gauges(picture: np.ndarray, a: np.ndarray, right: int, bottom: int) -> None:
    """C's action: a bar for each dimension, from the middle to the left or right."""
    half, high = 26, 6
    for index, value in enumerate(np.clip(a[::-1], -1, 1)):
        y = bottom - (index + 1) * (high + 3)
        middle, end = right - half, right - half + round(float(value) * half)
        cv2.rectangle(picture, (right - 2 * half, y), (right, y + high - 1), NIGHT, -1)
        cv2.rectangle(picture, (min(middle, end), y), (max(middle, end), y + high - 1), GLOW, -1)
