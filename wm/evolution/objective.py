"""The fitness of candidates from their scores in all episodes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from wm.evolution.evaluation import DreamUnit, GameUnit
from wm.pool import Crew


class Evaluation:
    """The scores of some candidates, filled in as the results of its units arrive."""

    def __init__(self, units: Iterable[GameUnit | DreamUnit], candidates: int, episodes: int):
        self.units = units
        self.scores = np.zeros((candidates, episodes))  # (P, E)
        self.steps = 0  # played or dreamed

    def add(self, unit: GameUnit | DreamUnit, result: Any) -> None:
        if isinstance(unit, DreamUnit):
            returns, lengths = result
            self.scores[unit.first : unit.first + len(returns)] = returns
            self.steps += int(lengths.sum())
        else:
            self.scores.flat[unit.first : unit.first + len(result)] = [episode.score for episode in result]
            self.steps += sum(episode.steps for episode in result)


def evaluate(crew: Crew, *evaluations: Evaluation) -> None:
    """Run the units of all evaluations in one go, so that no worker waits between them."""
    of_unit: dict[int, Evaluation] = {}

    def units() -> Iterator[GameUnit | DreamUnit]:
        for evaluation in evaluations:
            for unit in evaluation.units:
                of_unit[id(unit)] = evaluation
                yield unit

    for unit, result in crew.map(units()):
        of_unit.pop(id(unit)).add(unit, result)


def clipped(scores: np.ndarray, cut: float) -> np.ndarray:
    """Scores (P, E) relative to the candidates' median in each episode, clipped to [-cut, cut]; unchanged if cut is 0.

    A crash is mostly bad luck, and without the clip it outweighs all other differences between candidates. (P, E)
    """
    if not cut:
        return scores
    finite = np.where(np.isfinite(scores), scores, np.nan)
    return np.clip(finite - np.nanmedian(finite, axis=0), -cut, cut)


def most_telling(history: Sequence[dict[str, Any]]) -> list[int]:
    """The tracks played so far, those with the largest spread between candidates (when last played) first."""
    spread: dict[int, float] = {}
    for row in history:
        spread |= zip(row.get("tracks", ()), row.get("spread", ()), strict=True)
    return sorted(spread, key=lambda track: (-spread[track], track))
