"""CarRacing's picture, drawn a hundred times faster than the game draws it.

The game paints its whole field polygon by polygon, 1000x800 pixels each step, and shrinks that to 96x96. But a track
never changes during an episode: here it is painted once, and each step cuts its view out of that painting with an
affine warp that turns it so that the car looks up. The car itself stands still in this view; it is laid over it from
sprites (`carracing_car`). Skid marks are not drawn: the game leaves them out of its observations too.

Every constant below is the game's own geometry or follows from it. Lengths are in the game's world units, "screen" is
its 1000x800 surface, and V's frame is rows 0:84 of its 96x96 picture at 64x64.
"""

import math
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from gymnasium.envs.box2d.car_racing import PLAYFIELD, SCALE, WINDOW_H, WINDOW_W, ZOOM

from wm.envs.carracing_car import sprites
from wm.envs.carracing_instruments import draw_instruments
from wm.envs.carracing_scaling import PICTURE, ROWS, SIDE, shade

SHOWN = WINDOW_H * ROWS / PICTURE  # of the screen, above the instruments
EYE = (WINDOW_W / 2, WINDOW_H * 3 / 4)  # where on the screen the car stands
PATCHES = 40  # of light and dark grass, along the field's side

# The game blurs by a box filter, V's frame by two, across somewhat more than along. A texel of this size, with the
# warp's linear interpolation, has the mean of both, so that one sample a pixel of the frame is enough.
TEXELS = {SIDE: 1120, PICTURE: 1440}  # along the field's side: four times divisible by two, and by the patches
FINER = 2  # the track is painted at twice that and shrunk, which smooths its edges
LEVELS = 5  # each half as fine as the one before, for the zoom of the first second

Colour = Iterable[float]


def zoom_at(t: float) -> float:
    """Screen pixels per world unit, t seconds into the episode: the first second zooms in."""
    return 0.1 * SCALE * max(1 - t, 0) + ZOOM * SCALE * min(t, 1)


@lru_cache(maxsize=2)
def _meadow(texels: int, dark: tuple[int, ...], light: tuple[int, ...]) -> np.ndarray:
    """The field without a road; never written to. A fourth channel makes warps twice as fast."""
    grows = np.arange(texels) // (texels // PATCHES) % 2 == 0
    meadow = np.full((texels, texels, 4), (*dark, 255), np.uint8)
    meadow[np.ix_(grows, grows)] = (*light, 255)
    return meadow


class Painting:
    """The field with the road and kerbs of one episode, at several levels of detail."""

    def __init__(self, size: int):
        self.columns, self.rows = size, size * ROWS // PICTURE if size == PICTURE else size
        self.size, self.texels = size, TEXELS[size]
        self.texel = 2 * PLAYFIELD / self.texels
        self.sprites = sprites(size)
        self.levels = [np.empty((self.texels >> n, self.texels >> n, 4), np.uint8) for n in range(LEVELS)]

    def paint(self, road_poly: list, dark: Colour, light: Colour, road: Colour):
        """The game's list of (four corners, colour), from the first tile to the last; the colours of its grass, and of
        tiles that were driven on.
        """
        # where a turn changes its side, the game makes kerbs without width
        wide = [(poly, colour) for poly, colour in road_poly if poly[0] != poly[1]]
        polys = np.array([poly for poly, _ in wide])  # (polygons, 4, 2)
        colours = [colour for _, colour in wide]
        meadow = _meadow(self.texels, shade(dark), shade(light))
        # OpenCV's polygons reach half a pixel over their outline, as the game's do, but its pixels are other pixels
        overhang = 0.5 * self.texel / FINER - 0.5 / (ZOOM * SCALE)
        # the part with the road is painted finer
        quads = _fixed(_narrowed(polys, overhang), self.texel / FINER)
        low, high = quads.min((0, 1)) // (16 * FINER) - 1, quads.max((0, 1)) // (16 * FINER) + 2
        quads -= low * 16 * FINER
        part = np.s_[low[1] : high[1], low[0] : high[0]]
        fine = cv2.resize(meadow[part], None, fx=FINER, fy=FINER, interpolation=cv2.INTER_NEAREST)
        for quad, colour in zip(quads, colours, strict=True):
            cv2.fillConvexPoly(fine, quad, (*shade(colour), 255), cv2.LINE_8, 4)
        np.copyto(self.levels[0], meadow)
        self.levels[0][part] = cv2.resize(fine, tuple(high - low), interpolation=cv2.INTER_AREA)
        for larger, smaller in pairwise(self.levels):
            cv2.resize(larger, smaller.shape[:2], dst=smaller, interpolation=cv2.INTER_AREA)
        # the tiles' insides, without the rim that blends into the grass
        tiles = np.array([isinstance(colour, np.ndarray) for colour in colours])  # kerbs have tuples
        self.tiles = _fixed(_narrowed(polys[tiles], 1.5 * self.texel), self.texel)
        self.road = (*shade(road), 255)

    def visit(self, tile: int):
        """The game repaints a tile that was driven on in the darkest of the road's three greys."""
        cv2.fillConvexPoly(self.levels[0], self.tiles[tile], self.road, cv2.LINE_8, 4)

    def frame(self, car: Any, t: float, score: float) -> np.ndarray:
        """V's (64, 64, 3), or (96, 96, 3) with the instruments."""
        zoom = zoom_at(t)
        view = self._cut(car.position.x, car.position.y, car.hull.angle, zoom)
        if self.size == SIDE:
            frame = cv2.cvtColor(view, cv2.COLOR_RGBA2RGB)
        else:
            frame = np.empty((PICTURE, PICTURE, 3), np.uint8)
            cv2.cvtColor(view, cv2.COLOR_RGBA2RGB, dst=frame[:ROWS])
            draw_instruments(frame[ROWS:], car, score)
        self.sprites.draw(frame, car, zoom)
        return frame

    def _cut(self, x: float, y: float, angle: float, zoom: float) -> np.ndarray:
        """The field around the car. (rows, columns, RGBA)"""
        scale = ZOOM * SCALE / zoom
        level = min(round(math.log2(scale)), LEVELS - 1) if scale > 1 else 0
        texel = self.texel * 2**level
        # from the frame's pixel (column, row, 1) to the field's texel
        right, down = WINDOW_W / (self.columns * zoom * texel), SHOWN / (self.rows * zoom * texel)
        cos, sin = math.cos(angle), math.sin(angle)
        across, along = 0.5 * right - EYE[0] / (zoom * texel), EYE[1] / (zoom * texel) - 0.5 * down
        to_x = (x + PLAYFIELD) / texel - 0.5 + cos * across - sin * along
        to_y = (y + PLAYFIELD) / texel - 0.5 + sin * across + cos * along
        # Where many environments take turns, none of this is in the processor's cache. It arrives sooner when the
        # part in question is first copied line by line.
        last_x, last_y = right * (self.columns - 1), down * (self.rows - 1)
        left, right_most = _span(to_x, cos * last_x, sin * last_y, self.texels >> level)
        top, bottom = _span(to_y, sin * last_x, -cos * last_y, self.texels >> level)
        part = self.levels[level][top:bottom, left:right_most].copy()
        matrix = np.array([[cos * right, sin * down, to_x - left], [sin * right, -cos * down, to_y - top]])
        shape = (self.columns, self.rows)
        return cv2.warpAffine(part, matrix, shape, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _span(start: float, one: float, other: float, texels: int) -> tuple[int, int]:
    """The texels from the lowest to the highest that a view needs along one axis, at least one."""
    low = math.floor(start + min(one, 0.0) + min(other, 0.0)) - 1
    high = math.ceil(start + max(one, 0.0) + max(other, 0.0)) + 2
    low = min(max(low, 0), texels - 1)
    return low, max(min(high, texels), low + 1)


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
