"""How a search chooses its next values: a grid, at random, or by a model of the results so far (Optuna's TPE).

A proposal is a pure function of (spaces, seed, number, known results), so a search that was killed goes on by replaying
what it knows: nothing of a searcher's state is stored or unpickled.
"""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from wm.errors import UserError
from wm.experiments.spaces import Space
from wm.seeds import derive, generator

Kind = Literal["grid", "random", "tpe"]
KINDS: tuple[Kind, ...] = ("grid", "random", "tpe")
RANDOM_FIRST = 8  # trials before TPE has a model


@dataclass(frozen=True)
class Known:
    """What is known of a trial when the next one is proposed."""

    values: Mapping[str, Any]
    state: Literal["complete", "stopped", "failed", "running"]
    value: float | None = None  # of a stopped trial: its last validation
    steps: int = 0  # generations at which it was stopped


def grid(spaces: Sequence[Space]) -> list[dict[str, Any]]:
    """All combinations, the last field changing fastest."""
    for space in spaces:
        if not space.choices:
            raise UserError(
                f"a grid needs choices of {space.field}: list them, or add a number of points, as in"
                f" '{space.field}={space.low:g}..{space.high:g} 4'"
            )
    names = [space.field for space in spaces]
    return [dict(zip(names, values, strict=True)) for values in product(*(space.choices for space in spaces))]


def propose(
    kind: Kind, spaces: Sequence[Space], seed: int, number: int, default: Mapping[str, Any], known: Sequence[Known]
) -> dict[str, Any]:
    """The values of trial `number`. The first trial has the base's own values, if they are in the space."""
    if kind == "grid":
        return grid(spaces)[number]
    if number == 0 and all(space.contains(default[space.field]) for space in spaces):
        return dict(default)
    if kind == "random":
        rng = generator(seed, "tune", number)
        return {space.field: space.at(rng.random()) for space in spaces}
    return _tpe(spaces, derive(seed, "tune", number) % 2**32, known)


def require(kind: Kind) -> None:
    """A UserError if the library of this searcher is missing."""
    if kind == "tpe":
        _optuna()


def _tpe(spaces: Sequence[Space], seed: int, known: Sequence[Known]) -> dict[str, Any]:
    """A study in memory to which all known trials are added, asked once."""
    optuna = _optuna()
    spread = {space.field: _distribution(space) for space in spaces}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # multivariate and constant_liar are called experimental
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=RANDOM_FIRST, multivariate=True, constant_liar=True
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for one in known:
            study.add_trial(_replayed(optuna, one, spaces, spread))
        asked = study.ask(spread)
    values: dict[str, Any] = {}
    for space in spaces:
        found = asked.params[space.field]
        if space.choices:
            values[space.field] = space.choices[found]
        else:
            values[space.field] = int(found) if space.whole else float(f"{found:.6g}")
    return values


def _replayed(optuna: Any, one: Known, spaces: Sequence[Space], spread: Mapping[str, Any]) -> Any:
    states, params = optuna.trial.TrialState, {}
    for space in spaces:
        value = one.values[space.field]
        params[space.field] = space.choices.index(value) if space.choices else value
    finite = one.value if one.value is not None and math.isfinite(one.value) else None
    state = {
        "complete": states.COMPLETE if finite is not None else states.FAIL,
        "stopped": states.PRUNED,
        "failed": states.FAIL,
        "running": states.RUNNING,
    }[one.state]
    return optuna.trial.create_trial(
        state=state,
        value=finite if state == states.COMPLETE else None,
        params=params,
        distributions=dict(spread),
        intermediate_values={one.steps: finite} if one.state == "stopped" and finite is not None else None,
    )


def _distribution(space: Space) -> Any:
    optuna = _optuna()
    if space.choices:  # by index, since choices may be of any type
        return optuna.distributions.CategoricalDistribution(range(len(space.choices)))
    kind = optuna.distributions.IntDistribution if space.whole else optuna.distributions.FloatDistribution
    return kind(space.ends()[0], space.ends()[1], log=space.log)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError(
            "--searcher tpe needs Optuna: `pip install 'world-models-ray[tune]'`, or use --searcher random"
        ) from None
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna
