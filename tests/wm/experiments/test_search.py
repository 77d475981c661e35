"""Spaces, searchers, early stopping and the importance of fields."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm.config.presets import PRESETS
from wm.errors import UserError
from wm.experiments.definition import Definition, define, read_definition
from wm.experiments.importance import importances
from wm.experiments.searchers import Known, grid, propose
from wm.experiments.spaces import Space, parse_spaces
from wm.experiments.stopping import cutoff
from wm.experiments.trials import Validation
from wm.experiments.tune import Search
from wm.runs.reader import sealed
from wm.runs.storage import open_storage

TINY = PRESETS["tiny"]
WORDS = ("evolve.sigma0=0.01..1 log", "evolve.population=4..7", "controller.inputs=z,zh", "memory.hidden=16..64 log 3")
SPACES = parse_spaces(WORDS, TINY)
DEFAULT = {"evolve.sigma0": 0.03, "evolve.population": 4, "controller.inputs": "zh", "memory.hidden": 32}


def test_spaces_as_a_person_types_them() -> None:
    sigma, population, inputs, hidden = SPACES
    assert (sigma.low, sigma.high, sigma.log, sigma.whole) == (0.01, 1.0, True, False)
    assert inputs.choices == ("z", "zh")
    assert hidden.choices == (16, 32, 64)
    assert sigma.at(0.5) == pytest.approx(0.1)
    drawn = [population.at((index + 0.5) / 400) for index in range(400)]
    assert [drawn.count(size) for size in (4, 5, 6, 7)] == [100] * 4  # both ends are as likely as the others
    assert not inputs.numeric
    assert parse_spaces(["evolve.scaled=True,False"], TINY)[0].choices == (True, False)


def test_combinations_are_checked_before_anything_starts() -> None:
    with pytest.raises(UserError, match=r"evolve.again replays real episodes.*evolve.where dream, evolve.again 0.5"):
        parse_spaces(["evolve.where=real,dream", "evolve.again=0,0.5"], TINY)


def test_a_grid_has_all_combinations_once() -> None:
    spaces = parse_spaces(["evolve.sigma0=0.1,0.2", "controller.inputs=z,zh,zhc"], TINY)
    found = [tuple(values.values()) for values in grid(spaces)]
    assert len(found) == len(set(found)) == 6


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_proposals_are_a_function_of_what_is_known(kind: Any) -> None:
    """So a search that was killed goes on with the same proposals."""
    known: list[Known] = []
    for number in range(12):
        values, again = (propose(kind, SPACES, 1, number, DEFAULT, known) for _ in range(2))
        assert values == again
        assert all(space.contains(values[space.field]) for space in SPACES)
        state: Any = ("complete", "stopped", "failed", "complete")[number % 4]
        value = -abs(math.log(values["evolve.sigma0"] / 0.3))
        known.append(Known(values, state, None if state == "failed" else value, 4))
    assert known[0].values == DEFAULT
    assert len({one.values["evolve.sigma0"] for one in known}) == 12


def test_tpe_learns_where_the_good_values_are() -> None:
    spaces = SPACES[:1]

    def best_half(kind: Any) -> float:
        known: list[Known] = []
        for number in range(30):
            values = propose(kind, spaces, 1, number, {"evolve.sigma0": 0.03}, known)
            known.append(Known(values, "complete", -abs(math.log(values["evolve.sigma0"] / 0.4))))
        return float(np.mean([one.value or 0.0 for one in known[15:]]))

    assert best_half("tpe") > best_half("random") / 2


def rows(*scores: float, error: float = 1.0) -> list[Validation]:
    return [Validation(2 * index + 2, score, error) for index, score in enumerate(scores)]


def test_a_trial_is_stopped_below_the_median_beyond_the_error() -> None:
    others = [rows(10, 20), rows(12, 22), rows(14, 24), rows(1, 2)]
    stopped = cutoff(rows(5, 6), others)
    assert stopped is not None
    assert stopped.score == 20
    assert cutoff(rows(5, 17.5), others) is None  # within two errors of the difference: 2 * sqrt(2)
    assert cutoff(rows(5, 16.5), others) is not None
    assert cutoff(rows(5, 6, error=7.0), others) is None
    assert cutoff(rows(5, 6, error=0.0), others) is None  # one episode says nothing about its error
    assert cutoff(rows(5, 6), others[:2]) is None  # too few to compare with
    assert cutoff(rows(5, 6), [*others[:2], rows(50)]) is None  # which has not come as far
    assert cutoff(rows(9, 6, 6), others) is None  # only at 1, 2, 4, 8, ... validations
    assert cutoff(rows(30, 6), others) is None  # the best so far counts, since it is the result


def test_which_fields_matter() -> None:
    rng = np.random.default_rng(1)
    spaces = [Space("a.x", (), 0.01, 1, log=True), Space("a.y", ("p", "q")), Space("a.z", (), 0, 1)]
    values = [{"a.x": 10 ** rng.uniform(-2, 0), "a.y": rng.choice(["p", "q"]), "a.z": rng.random()} for _ in range(40)]
    scores = [-((math.log10(one["a.x"]) + 1) ** 2) + 0.2 * (one["a.y"] == "p") + rng.normal(0, 0.05) for one in values]
    found = importances(spaces, values, scores)
    assert [one.field for one in found][:2] == ["a.x", "a.y"]
    assert found[0].share > 0.7
    assert found[0].matters
    assert not next(one for one in found if one.field == "a.z").matters
    assert importances(spaces, values[:4], scores[:4]) == []


def test_a_definition_is_frozen_but_may_grow(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    first = Definition(tuple(SPACES), "random", 4)
    define(storage, first)
    define(storage, Definition(tuple(SPACES), "random", 9, seeds=2))
    assert read_definition(storage) == Definition(tuple(SPACES), "random", 9, seeds=2)
    with pytest.raises(UserError, match="was started with another --search"):
        define(storage, Definition(tuple(SPACES[:1]), "random", 4))


@pytest.mark.parametrize("data", [b"", b"{", b'{"evolve.sigma0": 0.1}', b"[]"])
def test_a_damaged_proposal_is_refused(tmp_path: Path, data: bytes) -> None:
    storage = open_storage(str(tmp_path))
    definition = Definition(tuple(SPACES), "random", 2)
    assert Search(storage, definition, TINY).next() is not None
    (tmp_path / "proposals/0001.json").write_bytes(data)
    with pytest.raises(UserError, match=r"proposals/0001.json is damaged"):
        Search(storage, definition, TINY)


def test_a_proposal_outside_of_its_space_is_refused(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    storage.put("proposals/0000.json", sealed(DEFAULT | {"evolve.sigma0": 5.0}, "proposals/0000.json"))
    with pytest.raises(UserError, match=r"evolve.sigma0 is not in its space"):
        Search(storage, Definition(tuple(SPACES), "random", 2), TINY)


def test_seeds_come_after_configurations_and_stop_with_them(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    search = Search(storage, Definition(tuple(SPACES), "random", 4, seeds=2, stop_early=True), TINY)
    begun = [search.next() for _ in range(4)]
    assert [trial.name for trial in begun if trial] == ["0000", "0001", "0002", "0003"]
    for number, trial in enumerate(begun):
        assert trial is not None
        assert search.validated(trial, rows(-1.0 if number == 3 else 50.0 + number)) == (number == 3)
    assert "median" in search.outcomes["0003"].reason
    later = Search(storage, search.definition, TINY)  # as another job would find it
    names = []
    while (trial := later.next()) is not None:
        names.append(trial.name)
    assert names == ["0000", "0001", "0002", "0000-seed-1", "0001-seed-1", "0002-seed-1"]
    assert later.proposals == search.proposals
