"""The car's picture in CarRacing, laid over the frame from sprites.

The car stands still in the frame. Its picture depends on how far the first second has zoomed in, and for each wheel on
how far it has rolled (a white mark turns with it) and where it steers. The hull covers parts of the wheels and the
wheels never overlap, so the picture is a sum of five: each is painted when it is first needed, as the game paints it
(pygame's polygons on the 1000x800 screen), shrunk to the frame's pixels, and kept.
"""

import cmath
import math
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

import Box2D
import numpy as np
import pygame
from gymnasium.envs.box2d.car_dynamics import (
    HULL_POLY1,
    HULL_POLY2,
    HULL_POLY3,
    HULL_POLY4,
    SIZE,
    WHEEL_R,
    WHEEL_W,
    WHEEL_WHITE,
    WHEELPOS,
)
from gymnasium.envs.box2d.car_racing import SCALE, WINDOW_H, WINDOW_W, ZOOM

from wm.envs.carracing_scaling import PICTURE, ROWS, SIDE, means, shade

NEAR = ZOOM * SCALE  # screen pixels per world unit after the first second
PHASES, ANGLES = 32, 60  # steps a turn of a wheel, and steps a radian of its steering, which ends at 0.4

# The part of the game's screen that holds the car. Its y points up until the game flips it.
LEFT, WIDTH, UP, HEIGHT = 470, 60, 150, 100
HUB = complex(WINDOW_W / 2, WINDOW_H / 4)  # where the car stands

HALF_W, HALF_R = WHEEL_W * SIZE, WHEEL_R * SIZE


def _corners(polygon: Iterable[tuple[float, float]]) -> list[complex]:
    """As complex numbers, so that turning is multiplying, in Box2D's own order: the game draws its shapes."""
    shape = Box2D.b2PolygonShape(vertices=[(x * SIZE, y * SIZE) for x, y in polygon])
    return [complex(*corner) for corner in shape.vertices]


HULL = [_corners(part) for part in (HULL_POLY1, HULL_POLY2, HULL_POLY3, HULL_POLY4)]
HUBS = [complex(x, y) * SIZE for x, y in WHEELPOS]
TYRE = _corners([(-WHEEL_W, WHEEL_R), (WHEEL_W, WHEEL_R), (WHEEL_W, -WHEEL_R), (-WHEEL_W, -WHEEL_R)])  # from its hub
RED, GREY = shade((204, 0, 0)), shade(WHEEL_WHITE)
HIGH = int(sys.byteorder == "little")
BLACK, COLOURED = 1, 2  # on the canvas; tyres are black


class Sprites:
    """The car in frames of one size: 64, or 96 with the instruments below."""

    def __init__(self, size: int):
        across, along = means(PICTURE, WINDOW_W), means(PICTURE, WINDOW_H)[:ROWS]  # from the screen to the frame
        if size == SIDE:
            across, along = means(SIDE, PICTURE) @ across, means(SIDE, ROWS) @ along
        across, along = across[:, LEFT : LEFT + WIDTH], along[:, ::-1][:, UP : UP + HEIGHT]
        columns, rows = np.flatnonzero(across.any(axis=1)), np.flatnonzero(along.any(axis=1))
        self.part = np.s_[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
        self.across, self.along = across[columns], along[rows]
        self.canvas = pygame.Surface((WIDTH, HEIGHT), depth=8)
        self.hulls: dict[float, np.ndarray] = {}
        self.wheels: dict[tuple[float, int, int, int], np.ndarray] = {}

    def draw(self, frame: np.ndarray, car: Any, zoom: float):
        """The car over its part of the frame. (H, W, RGB)"""
        hull = self.hulls.get(zoom)
        if hull is None:
            hull = self.hulls[zoom] = self._hull(zoom)
        total = hull.copy()  # (2, h, w, RGB)
        phases = math.ceil(PHASES * zoom / NEAR)  # a smaller car needs fewer
        angles = ANGLES * zoom / NEAR
        for number, wheel in enumerate(car.wheels):
            phase, angle = math.floor(wheel.phase / math.tau * phases) % phases, round(wheel.joint.angle * angles)
            key = (zoom, number, phase, angle)
            sprite = self.wheels.get(key)
            if sprite is None:
                rolled, turned = (phase + 0.5) / phases * math.tau, angle / angles
                sprite = self.wheels[key] = self._wheel(zoom, number, rolled, turned)
            total += sprite
        colour, through = total
        patch = frame[self.part]
        through *= patch
        through += colour
        patch[...] = through.view(np.uint8)[..., HIGH::2]  # the upper byte: divided by 256

    def _hull(self, zoom: float) -> np.ndarray:
        """The sum's beginning: the hull, the light from behind where nothing covers it, and the rounding."""
        self.canvas.fill(0)
        for part in HULL:
            self._polygon(COLOURED, part, zoom)
        return self._shrunk(RED) + np.array([128, 256], np.uint16)[:, None, None, None]

    def _wheel(self, zoom: float, number: int, rolled: float, turned: float) -> np.ndarray:
        self.canvas.fill(0)
        turn = cmath.rect(1, turned)
        self._polygon(BLACK, [HUBS[number] + turn * point for point in TYRE], zoom)
        if mark := _mark(rolled):
            self._polygon(COLOURED, [HUBS[number] + turn * point for point in mark], zoom)
        for part in HULL:
            self._polygon(0, part, zoom)
        return self._shrunk(GREY)

    def _polygon(self, colour: int, points: Iterable[complex], zoom: float):
        """Points around the car in whole screen pixels, cut off as the game does."""
        screen = [zoom * point + HUB for point in points]
        corners = [(math.floor(point.real) - LEFT, math.floor(point.imag) - UP) for point in screen]
        pygame.draw.polygon(self.canvas, colour, corners)

    def _shrunk(self, colour: tuple[int, ...]) -> np.ndarray:
        """What a sprite adds to 256 times the frame, and what it takes of the light, of 256. (2, h, w, RGB)"""
        pixels = pygame.surfarray.pixels2d(self.canvas).T
        covered, coloured = (
            np.floor(256 * (self.along @ part.astype(float) @ self.across.T) + 1e-9)[..., None]
            for part in (pixels > 0, pixels == COLOURED)
        )
        sprite = np.empty((2, *covered.shape[:2], 3), np.int64)
        sprite[0], sprite[1] = coloured * colour, -covered
        return sprite.astype(np.uint16)  # sums wrap around; what is left of the light is never below 0


@cache
def sprites(size: int) -> Sprites:
    """Shared by all environments of a process."""
    return Sprites(size)


def _mark(phase: float) -> tuple[complex, ...]:
    """The corners of a tyre's white mark, which turns with the wheel and is hidden when it is below."""
    s1, s2, c1, c2 = math.sin(phase), math.sin(phase + 1.2), math.cos(phase), math.cos(phase + 1.2)
    if s1 > 0 and s2 > 0:
        return ()
    front = (math.copysign(1, c1) if s1 > 0 else c1) * HALF_R * 1j
    back = (math.copysign(1, c2) if s2 > 0 else c2) * HALF_R * 1j
    return -HALF_W + front, HALF_W + front, HALF_W + back, -HALF_W + back
