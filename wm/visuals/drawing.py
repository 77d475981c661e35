"""Labelled grids of frames and panels of curves, drawn with OpenCV.

A picture is an RGB array, (height, width, 3) uint8, with a white background.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

PAPER, INK, FAINT, LINE = (255, 255, 255), (40, 44, 52), (120, 126, 136), (222, 225, 230)
BLUE, GREY = (20, 90, 200), (90, 95, 104)  # of curves
PALE = {BLUE: (205, 223, 245), GREY: (226, 228, 231)}  # of bands around curves
GAP, MARGIN, HEAD = 4, 16, 22  # pixels: between frames, around the picture, height of a line of text
SIDE = 128  # of a frame in a grid, in pixels: enlarged twice, without smoothing
TEXT, TITLE = 0.42, 0.55  # font sizes in OpenCV's unit


@dataclass(frozen=True)
class Curve:
    """Values over time; with `spread`, a pale band of that half-width around them."""

    values: np.ndarray  # (T,)
    colour: tuple[int, int, int] = GREY
    thickness: int = 1
    spread: np.ndarray | None = None  # (T,)

    @property
    def off(self) -> np.ndarray | float:
        return 0.0 if self.spread is None else self.spread


def sheet(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), PAPER, np.uint8)


def write(
    picture: np.ndarray,
    text: str,
    x: int,
    y: int,
    *,
    size: float = TEXT,
    colour: tuple[int, int, int] = INK,
    anchor: float = 0.0,
) -> None:
    """Text centred vertically at y; x is its left end (anchor 0), its centre (0.5) or its right end (1)."""
    height = cv2.getTextSize("0", cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][1]
    corner = (round(x - anchor * _width(text, size)), round(y + height / 2))
    cv2.putText(picture, text, corner, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def _width(text: str, size: float = TEXT) -> int:
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0]


def enlarged(frame: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Enlarge a frame (64, 64, 3), either uint8 or in [0, 1]."""
    if frame.dtype != np.uint8:
        frame = (frame * 255).round().clip(0, 255).astype(np.uint8)
    return cv2.resize(frame, (side, side), interpolation=cv2.INTER_NEAREST)


def framed(picture: np.ndarray, colour: tuple[int, int, int] = BLUE) -> np.ndarray:
    """A copy with a border that highlights it."""
    height, width = picture.shape[:2]
    return cv2.rectangle(picture.copy(), (1, 1), (width - 2, height - 2), colour, 3)


def title(text: str, more: str = "") -> np.ndarray:
    """A heading with an optional fainter line below."""
    picture = sheet(28 + (HEAD if more else 0), max(_width(text, TITLE), _width(more)))
    write(picture, text, 0, 14, size=TITLE)
    write(picture, more, 0, 14 + HEAD, colour=FAINT)
    return picture


def grid(
    rows: Sequence[Sequence[np.ndarray]], labels: Sequence[str], heads: Sequence[str], left: int = 0
) -> np.ndarray:
    """Pictures of the same size with a label left of each row and a head above each column; rows may be shorter."""
    height, width = rows[0][0].shape[:2]
    left = max(left, 12 + max(_width(label) for label in labels))
    columns = max(len(row) for row in rows)
    picture = sheet(HEAD + len(rows) * (height + GAP), left + columns * (width + GAP))
    for column, head in enumerate(heads):
        write(picture, head, left + column * (width + GAP) + width // 2, HEAD // 2, colour=FAINT, anchor=0.5)
    for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
        y = HEAD + index * (height + GAP)
        write(picture, label, 0, y + height // 2)
        for column, cell in enumerate(row):
            x = left + column * (width + GAP)
            picture[y : y + height, x : x + width] = cell
    return picture


def panel(
    curves: Sequence[Curve],
    label: str,
    note: str = "",
    *,
    first: int = 0,
    width: int = 1100,
    height: int = 120,
) -> np.ndarray:
    """Curves over the same steps, numbered from `first`, in a frame with axes."""
    left, right = 60, width - 8  # edges of the frame
    picture = sheet(HEAD + height + HEAD, width)
    write(picture, label, left, HEAD // 2)
    write(picture, note, right, HEAD // 2, colour=FAINT, anchor=1)
    bounds = [curve.values + sign * curve.off for curve in curves for sign in (-1, 1)]
    low, high = (float(f([f(values) for values in bounds if len(values)] or [0])) for f in (np.min, np.max))
    low, high = low - 0.06 * (high - low or 1), high + 0.06 * (high - low or 1)
    last = first + max(1, *(len(curve.values) - 1 for curve in curves))

    def points(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
        x = left + (steps - first) * (right - left) / (last - first)
        y = HEAD + (high - values) * height / (high - low)
        return np.rint(np.stack((x, y), axis=1) * 16).astype(np.int32)  # (T, 2), in 1/16 pixels for OpenCV

    for value in ticks(low, high, 3):
        y = int(points(np.array([first]), np.array([value]))[0, 1] / 16)
        cv2.line(picture, (left, y), (right, y), LINE, 1)
        write(picture, f"{value:g}", left - 8, y, colour=FAINT, anchor=1)
    for step in ticks(first, last, min(10, last - first)):
        x = int(points(np.array([step]), np.array([low]))[0, 0] / 16)
        cv2.line(picture, (x, HEAD), (x, HEAD + height), LINE, 1)
        write(picture, f"{step:g}", x, HEAD + height + 11, colour=FAINT, anchor=0.5)
    drawn = [(curve, np.arange(first, first + len(curve.values))) for curve in curves if len(curve.values)]
    for curve, steps in drawn:
        if curve.spread is not None:
            above, below = (points(steps, curve.values + sign * curve.spread) for sign in (1, -1))
            cv2.fillPoly(picture, [np.concatenate((above, below[::-1]))], PALE[curve.colour], cv2.LINE_AA, 4)
    for curve, steps in drawn:
        line = points(steps, curve.values)
        cv2.polylines(picture, [line], False, curve.colour, curve.thickness, cv2.LINE_AA, 4)
    return cv2.rectangle(picture, (left, HEAD), (right, HEAD + height), LINE, 1)


def ticks(low: float, high: float, about: int) -> np.ndarray:
    """About `about` round numbers between low and high."""
    raw = (high - low) / about
    power = 10 ** np.floor(np.log10(raw))
    step = power * min((1, 2, 5, 10), key=lambda times: abs(times * power - raw))
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1).round() * step + 0.0  # no -0


def legend(entries: Sequence[tuple[str, Curve]]) -> np.ndarray:
    """The names of the curves in one line."""
    picture = sheet(HEAD, sum(36 + _width(name) + 30 for name, _ in entries))
    x = 0
    for name, curve in entries:
        if curve.spread is not None:
            cv2.rectangle(picture, (x, 4), (x + 28, HEAD - 5), PALE[curve.colour], -1)
        cv2.line(picture, (x, HEAD // 2), (x + 28, HEAD // 2), curve.colour, curve.thickness, cv2.LINE_AA)
        write(picture, name, x + 36, HEAD // 2)
        x += 36 + _width(name) + 30
    return picture


def stacked(pictures: Sequence[np.ndarray], gap: int = 10) -> np.ndarray:
    """Pictures stacked vertically, with a margin around them."""
    width = max(picture.shape[1] for picture in pictures)
    height = sum(picture.shape[0] + gap for picture in pictures) - gap
    whole = sheet(height + 2 * MARGIN, width + 2 * MARGIN)
    y = MARGIN
    for picture in pictures:
        whole[y : y + picture.shape[0], MARGIN : MARGIN + picture.shape[1]] = picture
        y += picture.shape[0] + gap
    return whole


def png(picture: np.ndarray) -> bytes:
    # less than half of the size with OpenCV's defaults; takes a tenth of a second
    how = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FILTERED]
    good, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), how)
    assert good, picture.shape
    return data.tobytes()
