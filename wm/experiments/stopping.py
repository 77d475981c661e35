"""Which trials of a search are stopped early: asynchronous successive halving (Li et al., 2020) that respects errors.

At its 1st, 2nd, 4th, 8th, ... validation a trial is compared with all others that have come as far. It is stopped if
its best validation is below the median by more than the error of the difference allows. Validations use the same
episodes for all trials, so their errors are correlated and the rule is on the safe side.
"""

import math
from collections.abc import Sequence

from wm.experiments.trials import Validation

LEAST = 3  # other trials to compare with
DEVIATIONS = 2.0  # of the difference of two means, within which they count as equal


def cutoff(own: Sequence[Validation], others: Sequence[Sequence[Validation]]) -> Validation | None:
    """The validation that this trial is too far below to go on, or None if it continues."""
    if not own or len(own) & (len(own) - 1):
        return None  # not a power of two
    at = own[-1].generation
    rivals = [best_up_to(other, at) for other in others if other and other[-1].generation >= at]
    if len(rivals) < LEAST:
        return None
    mine = best_up_to(own, at)
    ranked = sorted([*rivals, mine], key=lambda one: one.score)
    median = ranked[len(ranked) // 2]
    error = math.hypot(mine.error, median.error)
    if not mine.error or not median.error:  # a single episode says nothing about its error
        return None
    return median if median.score - mine.score > DEVIATIONS * error else None


def best_up_to(validations: Sequence[Validation], generation: int) -> Validation:
    return max((one for one in validations if one.generation <= generation), key=lambda one: one.score)
