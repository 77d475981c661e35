"""A search over fields of the config: which trial is next, what is known, what came of each.

    search.json              the spaces and how they are searched; frozen
    size.json                how many configurations and seeds; may grow
    proposals/0003.json      the values of a trial, written before it starts
    outcomes/0003-seed-1.json  why a trial ended without a result: stopped early, or failed
    base/ shared/ trials/    runs, see wm/experiments/trials.py

Everything is written put-if-absent and read again after an interruption, so complete trials are never repeated.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wm.config.fields import leaves, with_overrides
from wm.config.schema import FORMAT, Config
from wm.errors import UserError
from wm.experiments.searchers import Kind, Known, grid, propose, require
from wm.experiments.spaces import Space, check_values, combinations
from wm.experiments.stopping import cutoff
from wm.experiments.trials import Place, Trial, TrialResult, Validation, levels_of, result_of, validations_of
from wm.runs.storage import Storage, to_json
from wm.statistics import mean_of

SEARCH, SIZE = "search.json", "size.json"


@dataclass(frozen=True)
class Definition:
    """What is searched and how. `trials` and `seeds` may grow later."""

    spaces: tuple[Space, ...]
    kind: Kind = "random"
    trials: int = 0
    seeds: int = 1
    stop_early: bool = False

    def check(self, config: Config) -> "Definition":
        """Itself with the number of trials of a grid, or a UserError."""
        require(self.kind)
        if self.seeds < 1:
            raise UserError(f"--seeds must be 1 or more, got {self.seeds}")
        if self.kind == "grid":
            size = len(grid(self.spaces))
            if self.trials not in (0, size):
                raise UserError(f"--trials must be {size} for this grid, got {self.trials}: remove it, or use another")
            return replace(self, trials=size)
        if self.trials < 1:
            raise UserError(f"--trials must be 1 or more, got {self.trials}")
        if self.stop_early and config.evolve.validation_episodes < 2:
            raise UserError("--stop-early needs to know the errors of validations: use --evolve.validation-episodes 2")
        return self

    def to_dict(self) -> dict[str, Any]:
        return {"spaces": [space.to_dict() for space in self.spaces], "searcher": self.kind} | {
            "stop_early": self.stop_early
        }

    @property
    def fields(self) -> list[str]:
        return [space.field for space in self.spaces]


def read_definition(storage: Storage) -> Definition | None:
    """The definition of the search in this storage, or None."""
    data, size = storage.get(SEARCH), json.loads(storage.get(SIZE) or b"{}")
    if data is None:
        return None
    try:
        found = json.loads(data)
        if found["format"] != FORMAT:
            raise UserError(f"{storage.uri} was made by another version of this project: use that version")
        spaces = tuple(Space(**one | {"choices": tuple(one["choices"])}) for one in found["spaces"])
        return Definition(
            spaces, found["searcher"], size.get("trials", 0), size.get("seeds", 1), stop_early=found["stop_early"]
        )
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{storage.uri}/{SEARCH} is not valid: restore it, or start another search") from None


@dataclass(frozen=True)
class Outcome:
    """Why a trial ended without a result."""

    state: str  # stopped or failed
    generation: int
    reason: str


class Search:
    """The state of a search in the job that drives it."""

    def __init__(self, storage: Storage, definition: Definition, config: Config):
        self.storage, self.definition, self.config = storage, definition, config
        uri = storage.uri
        self.place = Place(config, f"{uri}/base", f"{uri}/trials", f"{uri}/shared")
        self.default = {name: leaves(config)[name][1] for name in definition.fields}
        self.running: set[str] = set()
        self.proposals: dict[int, dict[str, Any]] = {}
        self.results: dict[str, TrialResult] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.validations: dict[str, list[Validation]] = {}
        self.lock = threading.RLock()
        self._read()

    def _read(self) -> None:
        for key in self.storage.sizes("proposals"):
            self.proposals[int(key.rpartition("/")[2].removesuffix(".json"))] = json.loads(self.storage.get(key) or b"")
        for key in self.storage.sizes("outcomes"):
            found = json.loads(self.storage.get(key) or b"")
            self.outcomes[key.rpartition("/")[2].removesuffix(".json")] = Outcome(**found)
        for trial in self.trials():
            if found := result_of(trial, self.place):
                self.results[trial.name] = found
            if validations := validations_of(self.place.uri(trial)):
                self.validations[trial.name] = validations

    @property
    def stages_of_base(self) -> tuple[str, bool]:
        """The first stage that trials do not share with the base, and whether any of them uses M."""
        uses = any(with_overrides(self.config, values).uses_memory for values in combinations(self.definition.spaces))
        return levels_of(dict.fromkeys(self.definition.fields))[0], uses

    def trial(self, number: int, seed: int) -> Trial:
        name = f"{number:04d}" + (f"-seed-{seed}" if seed else "")
        fixed = {"evolve.seed": self.config.evolve.seed + seed}
        return Trial(name, number, seed, self.proposals[number], fixed)

    def trials(self) -> Iterator[Trial]:
        """All trials with known values, in the order in which they are run.

        A model learns from whole configurations; otherwise the first seed of each comes first, for an early table.
        """
        count, seeds = self.definition.trials, self.definition.seeds
        pairs = [(number, seed) for seed in range(seeds) for number in range(count)]
        if self.definition.kind == "tpe":
            pairs.sort()
        for number, seed in pairs:
            if number in self.proposals:
                yield self.trial(number, seed)

    def next(self) -> Trial | None:
        """A trial to run now, which then counts as running; None if there is none left."""
        with self.lock:
            if self.definition.kind != "tpe":
                for number in range(self.definition.trials):
                    self._propose(number)
            while True:
                for trial in self.trials():
                    if self.is_open(trial) and trial.name not in self.running:
                        self.running.add(trial.name)
                        return trial
                number = len(self.proposals)
                if number >= self.definition.trials:
                    return None
                self._propose(number)

    def is_open(self, trial: Trial) -> bool:
        """Whether the trial has no result yet. The other seeds of a configuration that was ended are not begun."""
        ended = {self.trial(trial.number, seed).name for seed in range(self.definition.seeds)} & self.outcomes.keys()
        return trial.name not in self.results and not ended

    def validated(self, trial: Trial, found: Sequence[Validation]) -> bool:
        """Note a trial's validations, and return whether it is stopped."""
        with self.lock:
            self.validations[trial.name] = list(found)
            if not self.definition.stop_early:
                return False
            others = [rows for name, rows in self.validations.items() if name != trial.name]
            above = cutoff(found, others)
            if above is None:
                return False
            last = found[-1]
            best = max(found, key=lambda one: one.score)
            reason = f"validation {best.score:.4g} ± {best.error:.2g}, median {above.score:.4g} ± {above.error:.2g}"
            self._end(trial, Outcome("stopped", last.generation, reason))
            return True

    def completed(self, trial: Trial, result: TrialResult) -> None:
        with self.lock:
            self.running.discard(trial.name)
            self.results[trial.name] = result
            self.validations[trial.name] = validations_of(result.uri)

    def _end(self, trial: Trial, outcome: Outcome) -> None:
        with self.lock:
            self.running.discard(trial.name)
            self.outcomes[trial.name] = outcome
            self.storage.put_new(f"outcomes/{trial.name}.json", to_json(vars(outcome)))

    def failed(self, trial: Trial, reason: str) -> None:
        rows = self.validations.get(trial.name, [])
        self._end(trial, Outcome("failed", rows[-1].generation if rows else 0, reason))

    def _propose(self, number: int) -> None:
        if number in self.proposals:
            return
        definition = self.definition
        known = [self._known(before) for before in sorted(self.proposals)]
        values = propose(definition.kind, definition.spaces, self.config.seed, number, self.default, known)
        check_values(self.config, iter([values]))
        self.storage.put_new(f"proposals/{number:04d}.json", to_json(values))
        self.proposals[number] = values

    def _known(self, number: int) -> Known:
        """A configuration as the model sees it: the mean over its seeds."""
        names = [self.trial(number, seed).name for seed in range(self.definition.seeds)]
        values = self.proposals[number]
        ended = [self.outcomes[name] for name in names if name in self.outcomes]
        if ended:
            rows = [rows[-1] for name in names if (rows := self.validations.get(name))]
            state = "stopped" if ended[0].state == "stopped" and rows else "failed"
            value = mean_of([row.score for row in rows]).mean if rows else None
            return Known(values, state, value, ended[0].generation)  # type: ignore[arg-type]
        done = [self.results[name].validation.score for name in names if name in self.results]
        if len(done) == len(names):
            return Known(values, "complete", mean_of(done).mean)
        return Known(values, "running")


def define(storage: Storage, definition: Definition) -> None:
    """Freeze what is searched; a UserError if another search is there already."""
    data = to_json({"format": FORMAT} | definition.to_dict())
    if not storage.put_new(SEARCH, data):
        before = json.loads(storage.get(SEARCH) or b"{}")
        for name, value in json.loads(data).items():
            if before.get(name) != value:
                what = {"spaces": "--search", "searcher": "--searcher", "stop_early": "--stop-early"}.get(name, name)
                raise UserError(f"{storage.uri} was started with another {what}: use the same, or another --run")
    storage.put(SIZE, to_json({"trials": definition.trials, "seeds": definition.seeds}))
