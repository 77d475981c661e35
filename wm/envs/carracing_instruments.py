"""The bar of instruments below CarRacing's 96x96 picture: score, speed, the wheels' speeds, steering and turning.

Each instrument is a rectangle with one edge that moves, in whole pixels of the 1000x800 screen: its picture for each
place of that edge is made with pygame, as the game makes it, and kept. None of them covers another.
"""

import math
from functools import cache
from typing import Any

import numpy as np
import pygame
from gymnasium.envs.box2d.car_racing import WINDOW_H, WINDOW_W

from wm.envs.carracing_scaling import PICTURE, ROWS

UNIT, ROW = WINDOW_W / 40, WINDOW_H / 40  # the game's own grid
TOP = WINDOW_H * ROWS // PICTURE  # of the bar, on the screen
SIZE = (WINDOW_W, WINDOW_H - TOP)
SHRUNK = (PICTURE, PICTURE - ROWS)
FONT_SIZE, SCORE_AT = 42, (60, WINDOW_H - WINDOW_H * 2.5 / 40 - TOP)
WHITE, BLUE, VIOLET, GREEN, RED = (255, 255, 255), (0, 0, 255), (51, 0, 255), (0, 255, 0), (255, 0, 0)
LEAST = 1e-4  # smaller values are not drawn


def draw_instruments(bar: np.ndarray, car: Any, score: float):
    """The bar's pixels, (12, 96, RGB); they are overwritten."""
    bar[...] = 0
    _add(bar, _score(f"{score:04.0f}"))
    velocity = car.velocity
    wheels, joint = car.wheels, car.wheels[0].joint
    speed = math.sqrt(velocity.x**2 + velocity.y**2)
    for place, value, factor, colour in (
        (5, speed, 0.02, WHITE),
        (7, wheels[0].omega, 0.01, BLUE),
        (8, wheels[1].omega, 0.01, BLUE),
        (9, wheels[2].omega, 0.01, VIOLET),
        (10, wheels[3].omega, 0.01, VIOLET),
    ):
        if abs(value) > LEAST:
            _add(bar, _upright(place, int(WINDOW_H - (ROW + ROW * (factor * value))), colour))
    for place, angle, factor, colour in ((20, joint.angle, -10.0, GREEN), (30, car.hull.angularVelocity, -0.8, RED)):
        if abs(angle) > LEAST:
            _add(bar, _level(place, int((place + factor * angle) * UNIT), colour))


def _add(bar: np.ndarray, part: tuple[slice, np.ndarray]):
    columns, picture = part
    bar[:, columns] += picture


@cache
def _upright(place: int, end: int, colour: tuple[int, int, int]) -> tuple[slice, np.ndarray]:
    """A column of the wheels' speeds shares a line of pixels with the next, which is drawn over it."""
    left, foot = int(place * UNIT), int(WINDOW_H - ROW)
    right = left + int(UNIT) - (7 <= place < 10)
    return _rectangle((left, right), sorted((end, foot)), colour)


@cache
def _level(place: int, end: int, colour: tuple[int, int, int]) -> tuple[slice, np.ndarray]:
    return _rectangle(sorted((int(place * UNIT), end)), (int(WINDOW_H - 4 * ROW), int(WINDOW_H - 2 * ROW)), colour)


def _rectangle(across: Any, along: Any, colour: tuple[int, int, int]) -> tuple[slice, np.ndarray]:
    """Both ends belong to it, as to the game's polygons."""
    screen = pygame.Surface(SIZE)
    screen.fill(colour, (across[0], along[0] - TOP, across[1] - across[0] + 1, along[1] - along[0] + 1))
    return _shrunk(screen)


@cache
def _score(text: str) -> tuple[slice, np.ndarray]:
    screen = pygame.Surface(SIZE)
    written = _font().render(text, True, WHITE, (0, 0, 0))
    place = written.get_rect()
    place.center = SCORE_AT  # type: ignore[assignment]
    screen.blit(written, place)
    return _shrunk(screen)


@cache
def _font() -> pygame.font.Font:
    pygame.font.init()
    return pygame.font.Font(pygame.font.get_default_font(), FONT_SIZE)


def _shrunk(screen: pygame.Surface) -> tuple[slice, np.ndarray]:
    """The columns that are not black, and their pixels. (12, W, RGB)"""
    pixels = pygame.surfarray.array3d(pygame.transform.smoothscale(screen, SHRUNK)).transpose(1, 0, 2)
    lit = np.flatnonzero(pixels.any(axis=(0, 2)))
    columns = slice(int(lit[0]), int(lit[-1]) + 1) if len(lit) else slice(0, 0)
    return columns, pixels[:, columns].copy()
