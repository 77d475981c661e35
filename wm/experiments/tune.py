"""A search over fields of the config: which trial is next, what is known, what came of each.

    search.json size.json    what is searched, see wm/experiments/definition.py
    proposals/0003.json      the values of a trial, written before it starts
    outcomes/0003-seed-1.json  why a trial ended without a result: stopped early, or failed
    base/ shared/ trials/    runs, see wm/experiments/trials.py

Everything is written put-if-absent and read again after an interruption, so complete trials are never repeated.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wm.config.fields import leaves, with_overrides
from wm.config.schema import Config
from wm.experiments.definition import Definition, proposal_schema
from wm.experiments.searchers import Known, propose
from wm.experiments.spaces import check_values, combinations
from wm.experiments.stopping import cutoff
from wm.experiments.trials import Place, Trial, TrialResult, Validation, levels_of, result_of, validations_of
from wm.runs.reader import read, sealed
from wm.runs.storage import Storage
from wm.schemas import integer, one_of, record, text
from wm.statistics import mean_of


@dataclass(frozen=True)
class Outcome:
    """Why a trial ended without a result."""

    state: str  # stopped or failed
    generation: int
    reason: str


OUTCOME = record({"state": one_of("stopped", "failed"), "generation": integer(), "reason": text()})


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
        schema = proposal_schema(self.definition.spaces)
        for key in self.storage.sizes("proposals"):
            self.proposals[int(_name(key))] = (
                read(self.storage, key, schema, "restore it, or start another search") or {}
            )
        for key in self.storage.sizes("outcomes"):
            ended = read(self.storage, key, OUTCOME, "delete it, and the trial is run again")
            self.outcomes[_name(key)] = Outcome(**ended or {})
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
            key = f"outcomes/{trial.name}.json"
            self.storage.put_new(key, sealed(vars(outcome), key))

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
        key = f"proposals/{number:04d}.json"
        self.storage.put_new(key, sealed(values, key))
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


def _name(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")
