"""Validations in the history of an evolution, and when they have stopped rising."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def validated(history: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The generations whose mean was validated."""
    return [row for row in history if "validation" in row]


def has_reached(history: Sequence[dict[str, Any]], target: float) -> bool:
    """Whether the mean of the last two validations is at least `target`: one alone may be luck."""
    scores = [row["validation"] for row in validated(history)][-2:]
    return target != 0 and len(scores) == 2 and sum(scores) / 2 >= target


def has_settled(history: Sequence[dict[str, Any]], validations: int) -> bool:
    """Whether the mean of the last `validations` validations is not above that of as many before them.

    Means of several validations are compared, so that a single lucky or unlucky one neither ends an evolution nor
    prolongs it. An evolution that rises is not ended for a difference within its error: to ask for a rise of more than
    the error would end slow rises at the first opportunity.
    """
    scores = np.array([row["validation"] for row in validated(history)])  # (V,)
    if not validations or len(scores) < 2 * validations:
        return False
    return bool(scores[-validations:].mean() <= scores[-2 * validations : -validations].mean())
