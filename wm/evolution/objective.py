"""From the scores of all episodes to the fitness of each candidate."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from wm.evolution.evaluation import DreamUnit, GameUnit
from wm.pool import Crew


def evaluate(
    crew: Crew, units: Iterable[GameUnit | DreamUnit], candidates: int, episodes: int
) -> tuple[np.ndarray, int]:
    """Each candidate's scores (P, E), and the number of steps played or dreamed."""
    scores, steps = np.zeros((candidates, episodes)), 0
    for unit, result in crew.map(units):
        if isinstance(unit, DreamUnit):
            returns, lengths = result
            scores[unit.first : unit.first + len(returns)] = returns
            steps += int(lengths.sum())
        else:
            scores.flat[unit.first : unit.first + len(result)] = [episode.score for episode in result]
            steps += sum(episode.steps for episode in result)
    return scores, steps


def clipped(scores: np.ndarray, cut: float) -> np.ndarray:
    """Scores (P, E) relative to the candidates' median in each episode, clipped to `cut`; as they are without a cut.

    A crash is mostly luck, and would otherwise outweigh all differences in driving. (P, E)
    """
    if not cut:
        return scores
    known = np.where(np.isfinite(scores), scores, np.nan)
    return np.clip(known - np.nanmedian(known, axis=0), -cut, cut)


def most_telling(history: Sequence[dict[str, Any]]) -> list[int]:
    """The tracks played so far, those with the largest spread between candidates (when last played) first."""
    spread: dict[int, float] = {}
    for row in history:
        spread |= zip(row.get("tracks", ()), row.get("spread", ()), strict=True)
    return sorted(spread, key=lambda track: (-spread[track], track))
