"""Iterative training (Ha & Schmidhuber, 2018, section 5): each round trains on data that its predecessor collected.

The first round is the pipeline on random rollouts. In each later round the previous round's agent collects with some
noise, V and M are trained further on all rollouts so far, and C continues in the new M. At the end the best round's C
may be polished: V and M stay as they are, and C continues along principal components of its inputs. Each round is an
ordinary run (`round-000`, `round-001`, `round-001-polished`) that can be viewed, continued and built upon.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from wm.config.fields import with_overrides
from wm.config.schema import Config, Polish, Rounds
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
from wm.schemas import HASH, boolean, integer, mapping, measured, plain, record

MEAN = record({"mean": measured, "se": measured})
ROW = record(
    {
        "round": integer(),
        "polished": boolean,
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
POLISHED = "-polished"  # appended to a round's URI


def iterate(run: Run, pool: Pool) -> list[Manifest]:
    """Rounds until the target, the step budget or the number of rounds is reached, then the best round's score.

    If the target is not reached, the best round is polished before it is scored.
    """
    config = run.config
    second = round_config(config, run.uri, 1).check()  # fail now rather than after the first round
    if config.polish.generations:
        polish_config(config, second, run.uri).check()
    parts, table = list[Run](), list[dict[str, Any]]()

    def complete(part: Run, number: int, polished: bool = False) -> None:
        for stage in PREPARING:
            stage_function(stage)(part, pool)
        parts.append(part)
        table.append(_row(run, part, number, polished))
        run.storage.put("rounds.json", to_json(table))  # for other programs; each row is read from its round

    for number in range(config.rounds.count):
        complete(open_round(run, number), number)
        if enough(config.rounds, table):
            break
    if config.polish.generations and not enough(config.rounds, table):
        number = best_of(table)
        complete(open_polished(run, parts[number]), number, polished=True)
    return [stage_function("score")(parts[best_of(table)], pool)]


def open_round(run: Run, number: int) -> Run:
    """The run of this round, started if necessary. Only the last round can be extended: others are built upon."""
    uri, wanted = f"{run.uri}/round-{number:03}", round_config(run.config, run.uri, number)
    built_upon = number + 1 < run.config.rounds.count or open_run(uri + POLISHED) is not None
    existing = open_run(uri) if built_upon else None
    return _part_of(run, existing or start_run(uri, run.preset, wanted), f"round {number}")


def open_polished(run: Run, built: Run) -> Run:
    """The run in which this round's C is polished, started if necessary."""
    uri, wanted = built.uri + POLISHED, polish_config(run.config, built.config, built.uri)
    return _part_of(run, start_run(uri, run.preset, wanted, base=built.uri), "polish")


def _part_of(run: Run, part: Run, name: str) -> Run:
    part.tell = _named(run.tell, name, DiskSpaceCheck(part.config, part.storage))
    part.cpus = run.cpus
    return part


def rounds_of(run: Run) -> list[Run]:
    """The rounds so far, including the current one; empty for a run without rounds."""
    found: list[Run] = []
    while (part := open_run(f"{run.uri}/round-{len(found):03}")) is not None:
        found.append(part)
    return found


def polished_of(rounds: Sequence[Run]) -> list[Run]:
    """The polished runs of these rounds so far, including the current one."""
    return [part for one in rounds if (part := open_run(one.uri + POLISHED)) is not None]


def is_complete(run: Run) -> bool:
    """Whether everything that `iterate` makes exists, including the score."""
    config, parts = run.config, rounds_of(run)
    rows = [row_of(part) for part in parts]
    if not (rows and all(rows) and (len(rows) == config.rounds.count or enough(config.rounds, rows))):
        return False
    best = best_of(rows)
    if config.polish.generations and not enough(config.rounds, rows):
        last = open_run(parts[best].uri + POLISHED)
        row = row_of(last) if last else {}
        if last is None or row.get("generations", 0) < config.polish.generations:
            return False
        parts, rows = [*parts, last], [*rows, row]
        best = best_of(rows)
    return all(status.complete for status in stage_statuses(parts[best]).values())


def best_of(table: Sequence[dict[str, Any]]) -> int:
    """The index of the row with the best-validated C."""
    return max(range(len(table)), key=lambda at: table[at]["validation"])


def row_of(part: Run) -> dict[str, Any]:
    """The metrics of a complete round, or {}."""
    return read(part.storage, "round.json", ROW, CURE) or {}


def round_config(config: Config, uri: str, number: int) -> Config:
    """The config of one round: the first as given, each later one with the overrides of `rounds`."""
    if number == 0:  # there is no M yet to be curious with
        return replace(config, collect=replace(config.collect, curiosity=0.0), rounds=Rounds(), polish=Polish())
    rounds, before = config.rounds, f"{uri}/round-{number - 1:03}"
    own = with_overrides(config, rounds.overrides)
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
            init_sigma=rounds.overrides.get("evolve.init-sigma", 0.0),
            refit=rounds.overrides.get("evolve.refit", False),
            seed=own.evolve.seed + number,
        ),
        rounds=Rounds(),
        polish=Polish(),
    )


def polish_config(config: Config, built: Config, uri: str) -> Config:
    """The config of the round at this URI, made with `built`, with the overrides of `polish`."""
    own = with_overrides(built, {"evolve.refit": False, **config.polish.overrides})
    evolve = replace(own.evolve, init=uri, seed=built.evolve.seed + 1)
    return replace(own, evolve=evolve, workers=config.workers)


def _named(tell: Callable[[Progress], None], name: str, check: DiskSpaceCheck) -> Callable[[Progress], None]:
    def named(progress: Progress) -> None:
        check.tell(progress)
        tell(replace(progress, stage=f"{name} {progress.stage}"))

    return named


def enough(rounds: Rounds, table: Sequence[dict[str, Any]]) -> bool:
    """Whether the last round has reached the target or used up the step budget."""
    last = table[-1]
    reached = rounds.target and last["validation"] >= rounds.target
    spent = rounds.env_steps and last["env_steps"] >= rounds.env_steps
    return bool(reached or spent)


def _row(run: Run, part: Run, number: int, polished: bool) -> dict[str, Any]:
    """The metrics of a round, stored in it and measured again only if its C has changed."""
    evolved = part.need("evolve")
    known, made = row_of(part), {"evolve": evolved.digest, "generations": evolved.extent}
    if known.items() >= made.items():
        return known
    row = {"round": number, "polished": polished, **made, **round_metrics(rounds_of(run)[0], part, number)}
    part.storage.put("round.json", sealed(row))
    return row
