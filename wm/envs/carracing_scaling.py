"""How the game shrinks its 1000x800 screen to the 96x96 picture, and `Exact` that to V's 64x64: means over areas."""

from collections.abc import Iterable

import numpy as np

SIDE = 64  # V's frame
PICTURE = 96  # the game's
ROWS = 84  # of the picture's; below are the instruments, which V does not see


def shade(colour: Iterable[float]) -> tuple[int, ...]:
    """The colour as it arrives in the picture: pygame's smooth scaling loses one in each of its two passes."""
    return tuple(max(0, int(c) - 2) for c in colour)


def means(small: int, large: int) -> np.ndarray:
    """The matrix that shrinks a line of pixels by taking means, each pixel by its share. (small, large)"""
    edges = np.arange(small + 1)[:, None] * large / small
    covered = np.clip(edges - np.arange(large), 0, 1)  # of each large pixel, left of each edge
    return np.diff(covered, axis=0) * small / large
