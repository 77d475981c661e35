"""When scores have stopped rising, by a rule that allows for their noise."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def has_settled(history: Sequence[dict[str, Any]], validations: int) -> bool:
    """Whether the mean of the last `validations` validations is not above that of as many before them.

    Means of several validations are compared, so that a single lucky or unlucky one neither ends an evolution nor
    prolongs it. An evolution that rises is not ended for a difference within its error: to ask for a rise of more than
    the error would end slow rises at the first opportunity.
    """
    scores = np.array([row["validation"] for row in history if "validation" in row])  # (V,)
    if not validations or len(scores) < 2 * validations:
        return False
    return bool(scores[-validations:].mean() <= scores[-2 * validations : -validations].mean())
