"""Iterative training (Ha & Schmidhuber, 2018, section 5): each round trains on data that its predecessor collected.

The first round is the pipeline on random rollouts. In each later round the best agent of the previous round collects
with some noise, V and M are trained further on all rollouts so far, and C continues in the new M. Each round is an
ordinary run (`round-000`, `round-001`, ...) that can be viewed, continued and built upon.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from wm.config.fields import with_overrides
from wm.config.schema import Config, Rounds
from wm.envs import load
from wm.experiments.round_metrics import round_metrics
from wm.pipeline import stage_function
from wm.pool import Pool, Progress
from wm.runs.disk_check import DiskSpaceCheck
from wm.runs.manifest import Manifest
from wm.runs.reader import read, sealed
from wm.runs.run import Run, open_run, start_run
from wm.runs.stages import STAGES
from wm.runs.status import stage_statuses
from wm.runs.storage import to_json
from wm.schemas import HASH, integer, mapping, measured, plain, record

log = logging.getLogger(__name__)

MEAN = record({"mean": measured, "se": measured})
ROW = record(
    {
        "round": integer(),
        "evolve": HASH,
        "generations": integer(),
        "env_steps": integer(),
        "validation": measured,
        "validation_se": measured,
        "driven": measured,
        "dream": MEAN,
        "coverage": plain,
        "nll": mapping(MEAN),
    },
    {"nll_before": MEAN},
)
CURE = "delete it and run `python -m jobs.iterate` again, which measures the round again"
PREPARING = tuple(STAGES)[:-1]  # all stages but the score, which only the best round gets
STALLED = 2  # rounds without a better C after which no further one starts, with evolve.plateau

Row = dict[str, Any]


def iterate(run: Run, pool: Pool) -> list[Manifest]:
    """Rounds until there is a reason to end, then the score of the best one."""
    round_config(run.config, 1, f"{run.uri}/round-000").check()  # fail now rather than after the first round
    rounds, table = list[Run](), list[Row]()
    while not (ended := reason_to_end(run.config, table)):
        before = rounds[-1].uri if rounds else ""
        rounds.append(open_round(run, len(rounds), before))
        for stage in PREPARING:
            stage_function(stage)(rounds[-1], pool)
        table.append(_row(rounds[0], rounds[-1], len(table)))
        run.storage.put("rounds.json", to_json(table))  # for other programs; each row is read from its round
    log.info("rounds end: %s", ended)
    return [stage_function("score")(rounds[best_of(table)], pool)]


def open_round(run: Run, number: int, before: str) -> Run:
    """The run of this round, started if necessary. Only the last one can be extended: others are built upon."""
    uri = f"{run.uri}/round-{number:03}"
    existing = open_run(uri) if number + 1 < run.config.rounds.count else None
    part = existing or start_run(uri, run.preset, round_config(run.config, number, before))
    part.tell = _named(run.tell, f"round {number}", DiskSpaceCheck(part.config, part.storage))
    part.cpus = run.cpus
    return part


def rounds_of(run: Run) -> list[Run]:
    """The rounds so far in order, including the current one; empty for a run without rounds."""
    found = list[Run]()
    while (part := open_run(f"{run.uri}/round-{len(found):03}")) is not None:
        found.append(part)
    return found


def is_complete(run: Run) -> bool:
    """Whether everything that `iterate` makes exists, including the score."""
    rounds = rounds_of(run)
    rows = [row_of(part) for part in rounds]
    if not (rows and all(rows) and reason_to_end(run.config, rows)):
        return False
    last = round_config(run.config, len(rows) - 1, "")
    if len(rows) == run.config.rounds.count and rows[-1]["generations"] < last.evolve.generations:
        return False  # the last round gets more generations
    return all(status.complete for status in stage_statuses(rounds[best_of(rows)]).values())


def best_of(table: Sequence[Row]) -> int:
    """The index of the row with the best-validated C."""
    return max(range(len(table)), key=lambda at: table[at]["validation"])


def row_of(part: Run) -> Row:
    """The metrics of a complete round, or {}."""
    return read(part.storage, "round.json", ROW, CURE) or {}


def round_config(config: Config, number: int, before: str) -> Config:
    """The config of one round: the first as given, each later one with the overrides of `rounds`.

    `before` is the URI of the run that a later round builds on.
    """
    if number == 0:  # there is no M yet to be curious with
        return replace(config, collect=replace(config.collect, curiosity=0.0), rounds=Rounds())
    rounds = config.rounds
    own = with_overrides(config, rounds.overrides)
    doublings = _doublings(own.evolve.episodes, rounds.max_episodes, number - 1)
    return replace(
        own,
        collect=replace(
            own.collect,
            agent=before,
            steps=load(config.game).max_steps,
            unit_episodes=math.gcd(own.collect.unit_episodes, own.collect.episodes),
        ),
        vision=replace(own.vision, init=before),
        memory=replace(own.memory, init=before),
        evolve=replace(
            own.evolve,
            init="" if rounds.fresh else before,
            init_sigma=rounds.overrides.get("evolve.init-sigma", 0.0) / 2 ** (doublings / 2),
            refit=rounds.overrides.get("evolve.refit", False),
            episodes=own.evolve.episodes << doublings,
            seed=own.evolve.seed + number,
        ),
        rounds=Rounds(),
    )


def _doublings(episodes: int, most: int, wanted: int) -> int:
    """How often the episodes per candidate are doubled: the better C is, the smaller the differences to be measured.

    Twice the episodes halve the variance of a score, so sigma is divided by the root of two.
    """
    return next((number for number in range(wanted) if episodes << (number + 1) > most), wanted)


def _named(tell: Callable[[Progress], None], name: str, check: DiskSpaceCheck) -> Callable[[Progress], None]:
    def named(progress: Progress) -> None:
        check.tell(progress)
        tell(replace(progress, stage=f"{name} {progress.stage}"))

    return named


def reason_to_end(config: Config, table: Sequence[Row]) -> str:
    """Why no further round starts after these, or "" if one does."""
    if not table:
        return ""
    rounds, last = config.rounds, table[-1]
    if rounds.target and last["validation"] >= rounds.target:
        return f"the validation has reached the target {rounds.target:g}"
    if rounds.env_steps and last["env_steps"] >= rounds.env_steps:
        return f"{last['env_steps']:,} steps are played, the budget is {rounds.env_steps:,}"
    if config.evolve.plateau and best_of(table) < len(table) - STALLED:
        return f"the last {STALLED} rounds are not better than round {best_of(table)}"
    return "all rounds are complete" if len(table) >= rounds.count else ""


def _row(first: Run, part: Run, number: int) -> Row:
    """The metrics of a round, stored in it and measured again only if its C has changed."""
    evolved = part.need("evolve")
    known, made = row_of(part), {"evolve": evolved.digest, "generations": evolved.extent}
    if known.items() >= made.items():
        return known
    row = {"round": number, **made, **round_metrics(first, part, number)}
    part.storage.put("round.json", sealed(row, "round.json"))
    return row
