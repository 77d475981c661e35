"""When scores have stopped rising, by a rule that allows for their noise."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wm.statistics import mean_of


def rises(scores: np.ndarray, before: np.ndarray) -> bool:
    """Whether scores (E,) are above earlier ones in the same episodes, by more than the difference's standard error.

    The difference in each episode is less noisy than the scores, since some tracks are harder than others.
    """
    difference = mean_of(scores - before)
    return difference.mean > difference.error


def has_settled(history: Sequence[dict[str, Any]], validations: int) -> bool:
    """Whether the mean of the last `validations` validations is not above that of as many before them.

    Means of several validations are compared, so that a single lucky or unlucky one neither ends an evolution nor
    prolongs it.
    """
    scores = np.array([row["validation_scores"] for row in history if "validation_scores" in row])  # (V, E)
    if not validations or len(scores) < 2 * validations:
        return False
    return not rises(scores[-validations:].mean(axis=0), scores[-2 * validations : -validations].mean(axis=0))
