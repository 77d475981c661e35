"""CarRacing's picture, drawn about fifty times faster than the game draws it.

The game paints its whole field polygon by polygon, 1000x800 pixels each step, and shrinks that to 96x96. But
a track never changes during an episode: here it is painted once, and each step cuts its view out of that
painting with an affine warp that turns it so that the car looks up. The car itself stands still in this view,
only its wheels move. Skid marks are not drawn: the game leaves them out of its observations too.

Every constant below is the game's own geometry or follows from it. Lengths are in the game's world units,
"screen" is its 1000x800 surface, and V's frame is rows 0:84 of its 96x96 picture at 64x64.
"""

import cmath
import math
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from gymnasium.envs.box2d.car_dynamics import (
    HULL_POLY1,
    HULL_POLY2,
    HULL_POLY3,
    HULL_POLY4,
    SIZE,
    WHEEL_COLOR,
    WHEEL_R,
    WHEEL_W,
    WHEEL_WHITE,
    WHEELPOS,
    Car,
)
from gymnasium.envs.box2d.car_racing import GRASS_DIM, PLAYFIELD, SCALE, WINDOW_H, WINDOW_W, ZOOM

SIDE = 64  # V's frame
ROWS = 84  # of the picture's 96; below are the instruments, which V does not see
SHOWN = WINDOW_H * ROWS / 96  # the same on the screen
EYE = (WINDOW_W / 2, WINDOW_H * 3 / 4)  # where on the screen the car stands

# The game blurs by two box filters, across somewhat more than along. A texel of this size, with the warp's
# linear interpolation, has the mean of both, so that one sample a pixel of the frame is enough.
TEXELS = 1120  # along the field's side; four times divisible by two, and 28 to each patch of grass
TEXEL = 2 * PLAYFIELD / TEXELS
FINER = 2  # the track is painted at twice that and shrunk, which smooths its edges
LEVELS = 5  # each half as fine as the one before, for the zoom of the first second

# OpenCV's polygons reach half a pixel over their outline, as the game's do, but its pixels are other pixels.
OVERHANG = 0.5 * TEXEL / FINER - 0.5 / (ZOOM * SCALE)

# The car is painted on its own small canvas over rows 63:84 and columns 45:51 of the 96x96 picture. Those are
# rows 48:64 and columns 30:34 of V's frame, so it can be shrunk in the same two steps as the game's picture.
CANVAS_FINER = 8  # about the screen's own pixels
CANVAS = (21 * CANVAS_FINER, 6 * CANVAS_FINER, 4)
CANVAS_CORNER = np.array([45 * WINDOW_W / 96, 63 * WINDOW_H / 96])
CANVAS_PIXEL = np.array([WINDOW_W, WINDOW_H]) / (96 * CANVAS_FINER)

# Points around the car are complex numbers, so that turning is multiplying.
HULL = [np.array(p) @ [SIZE, SIZE * 1j] for p in (HULL_POLY1, HULL_POLY2, HULL_POLY3, HULL_POLY4)]
HUBS = (np.array(WHEELPOS) @ [SIZE, SIZE * 1j])[:, None]  # (4, 1)
HALF_W, HALF_R = WHEEL_W * SIZE, WHEEL_R * SIZE * 1j
TYRE = (-HALF_W + HALF_R, HALF_W + HALF_R, HALF_W - HALF_R, -HALF_W - HALF_R)  # seen from its hub
HIDDEN = (0j, 0j, 0j, 0j)


def shade(colour: Iterable[float]) -> tuple[int, ...]:
    """The colour as it arrives in the frame: pygame's smooth scaling loses one in each of its two passes."""
    return tuple(max(0, int(c) - 2) for c in colour)


MEADOW, GRASS, ROAD = shade((102, 204, 102)), shade((102, 230, 102)), shade((102, 102, 102))
HULL_RED, TYRE_BLACK, TYRE_WHITE = [(*shade(c), 255) for c in ((204, 0, 0), WHEEL_COLOR, WHEEL_WHITE)]


def zoom_at(t: float) -> float:
    """Screen pixels per world unit, t seconds into the episode: the first second zooms in."""
    return 0.1 * SCALE * max(1 - t, 0) + ZOOM * SCALE * min(t, 1)


@lru_cache(maxsize=1)
def _meadow() -> np.ndarray:
    """The field without a road; never written to. A fourth channel makes warps twice as fast."""
    patch = round(GRASS_DIM / TEXEL)
    grows = np.arange(TEXELS) // patch % 2 == 0
    meadow = np.full((TEXELS, TEXELS, 4), (*MEADOW, 255), np.uint8)
    meadow[np.ix_(grows, grows)] = (*GRASS, 255)
    return meadow


class Painting:
    """The field with the road and kerbs of one episode, at several sizes; painted anew for the next."""

    def __init__(self, size: int = 64):
        self.levels = [np.empty((TEXELS >> n, TEXELS >> n, 4), np.uint8) for n in range(LEVELS)]

    def paint(self, road_poly: list):
        """The game's list of (four corners, colour), from the first tile to the last."""
        # where a turn changes its side, the game makes kerbs without width
        wide = [(poly, colour) for poly, colour in road_poly if poly[0] != poly[1]]
        polys = np.array([poly for poly, _ in wide])  # (polygons, 4, 2)
        colours = [colour for _, colour in wide]
        # the part with the road is painted finer
        quads = _fixed(_narrowed(polys, OVERHANG), TEXEL / FINER)
        low, high = quads.min((0, 1)) // (16 * FINER) - 1, quads.max((0, 1)) // (16 * FINER) + 2
        quads -= low * 16 * FINER
        part = np.s_[low[1] : high[1], low[0] : high[0]]
        fine = cv2.resize(_meadow()[part], None, fx=FINER, fy=FINER, interpolation=cv2.INTER_NEAREST)
        for quad, colour in zip(quads, colours, strict=True):
            cv2.fillConvexPoly(fine, quad, (*shade(colour), 255), cv2.LINE_8, 4)
        np.copyto(self.levels[0], _meadow())
        self.levels[0][part] = cv2.resize(fine, tuple(high - low), interpolation=cv2.INTER_AREA)
        for larger, smaller in pairwise(self.levels):
            cv2.resize(larger, smaller.shape[:2], dst=smaller, interpolation=cv2.INTER_AREA)
        # the tiles' insides, without the rim that blends into the grass
        tiles = np.array([isinstance(colour, np.ndarray) for colour in colours])  # kerbs have tuples
        self.tiles = _fixed(_narrowed(polys[tiles], 1.5 * TEXEL), TEXEL)
        self.visited: set[int] = set()

    def visit(self, tile: int):
        """The game repaints a tile that was driven on in the darkest of the road's three greys."""
        if tile not in self.visited:
            self.visited.add(tile)
            cv2.fillConvexPoly(self.levels[0], self.tiles[tile], (*ROAD, 255), cv2.LINE_8, 4)

    def frame(self, car: Car, t: float) -> np.ndarray:
        """What V sees. (64, 64, 3)"""
        zoom = zoom_at(t)
        scale = ZOOM * SCALE / zoom
        level = min(round(math.log2(scale)), LEVELS - 1) if scale > 1 else 0
        texel = TEXEL * 2**level
        # from the frame's pixel (column, row, 1) to the field's texel
        angle, (x, y) = car.hull.angle, car.hull.position
        right, down = WINDOW_W / (SIDE * zoom * texel), SHOWN / (SIDE * zoom * texel)
        cos, sin = math.cos(angle), math.sin(angle)
        across, along = 0.5 * right - EYE[0] / (zoom * texel), EYE[1] / (zoom * texel) - 0.5 * down
        to_x = (x + PLAYFIELD) / texel - 0.5 + cos * across - sin * along
        to_y = (y + PLAYFIELD) / texel - 0.5 + sin * across + cos * along
        matrix = np.array([[cos * right, sin * down, to_x], [sin * right, -cos * down, to_y]])
        view = _cut(self.levels[level], matrix)
        _paint_car(view[48:64, 30:34], car, zoom)
        return cv2.cvtColor(view, cv2.COLOR_RGBA2RGB)


def _cut(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _paint_car(patch: np.ndarray, car: Car, zoom: float):
    """The car, over its part of the frame. (16, 4, RGBA)"""
    canvas = np.zeros(CANVAS, np.uint8)
    marks = [_mark(wheel.phase) for wheel in car.wheels]
    turns = np.array([cmath.rect(1, wheel.joint.angle) for wheel in car.wheels])[:, None]
    wheels = _on_canvas(HUBS + turns * np.array([TYRE + mark for mark in marks]), zoom)  # (4, 4 + 4, 2)
    for wheel, mark in zip(wheels, marks, strict=True):
        cv2.fillConvexPoly(canvas, wheel[:4], TYRE_BLACK, cv2.LINE_8, 4)
        if mark is not HIDDEN:
            cv2.fillConvexPoly(canvas, wheel[4:], TYRE_WHITE, cv2.LINE_8, 4)
    for part in _hull(zoom):
        cv2.fillConvexPoly(canvas, part, HULL_RED, cv2.LINE_8, 4)
    picture = cv2.resize(canvas, (6, 21), interpolation=cv2.INTER_AREA)
    picture = cv2.resize(picture, (4, 16), interpolation=cv2.INTER_AREA)
    through = cv2.merge([255 - picture[..., 3]] * 4)
    cv2.add(cv2.multiply(patch, through, scale=1 / 255), picture, dst=patch)


@lru_cache(maxsize=1)  # the same at every step, but for the zoom of the first second
def _hull(zoom: float) -> list[np.ndarray]:
    return [_on_canvas(part, zoom) for part in HULL]


def _mark(phase: float) -> tuple[complex, ...]:
    """The corners of a tyre's white mark, which turns with the wheel and is hidden when it is below."""
    s1, s2, c1, c2 = math.sin(phase), math.sin(phase + 1.2), math.cos(phase), math.cos(phase + 1.2)
    if s1 > 0 and s2 > 0:
        return HIDDEN
    front = (math.copysign(1, c1) if s1 > 0 else c1) * HALF_R
    back = (math.copysign(1, c2) if s2 > 0 else c2) * HALF_R
    return -HALF_W + front, HALF_W + front, HALF_W + back, -HALF_W + back


# the game turns its picture upside down at last, so its y points up
ON_CANVAS = np.array([16, -16]) / CANVAS_PIXEL
CANVAS_ORIGIN = (np.array([0.5, WINDOW_H - 0.5]) - CANVAS_CORNER) * [1, -1] * ON_CANVAS - 8
SCREEN_ORIGIN = np.array([WINDOW_W / 2, WINDOW_H / 4])


def _on_canvas(points: np.ndarray, zoom: float) -> np.ndarray:
    """Points around the car to the canvas, cut to whole screen pixels as the game does. (..., 2)"""
    screen = np.floor(points.view(float).reshape(*points.shape, 2) * zoom + SCREEN_ORIGIN)
    return np.rint(screen * ON_CANVAS + CANVAS_ORIGIN).astype(np.int32)


def _narrowed(quads: np.ndarray, by: float) -> np.ndarray:
    """Pieces of road as (left, right, right, left), narrower by that much on either side."""
    left, right = quads[:, [0, 3]], quads[:, [1, 2]]
    inwards = right - left
    inwards *= by / np.linalg.norm(inwards, axis=-1, keepdims=True)
    left, right = left + inwards, right - inwards
    return np.stack([left[:, 0], right[:, 0], right[:, 1], left[:, 1]], 1)


def _fixed(points: np.ndarray, texel: float) -> np.ndarray:
    """World to texels, in the sixteenths that OpenCV takes."""
    return np.rint(((points + PLAYFIELD) / texel - 0.5) * 16).astype(np.int32)
