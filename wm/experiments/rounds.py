"""Iterative training (Ha & Schmidhuber, 2018, section 5): each round trains on data that its predecessor collected.

The first round is the pipeline on random rollouts. In each later round the best agent of the previous round collects
with some noise, V and M are trained further on all rollouts so far, and C continues in the new M. A round may end with
a polish: V and M stay as they are, and C continues along principal components of its inputs. Each part is an ordinary
run (`round-000`, `round-000-polished`, `round-001`, ...) that can be viewed, continued and built upon.
"""

import logging
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

log = logging.getLogger(__name__)

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
PREPARING = tuple(STAGES)[:-1]  # all stages but the score, which only the best part gets
POLISHED = "-polished"  # appended to a round's URI
ALL = "all rounds are complete"  # the only reason to end that is not early

Row = dict[str, Any]


def iterate(run: Run, pool: Pool) -> list[Manifest]:
    """Rounds until there is a reason to end, then the score of the best part."""
    config = run.config
    second = round_config(config, 1, f"{run.uri}/round-000").check()  # fail now rather than after the first round
    if config.polish.generations:
        polish_config(config, second, run.uri, 0).check()
    parts, table = list[Run](), list[Row]()

    def complete(part: Run, number: int, polished: bool = False) -> Run:
        for stage in PREPARING:
            stage_function(stage)(part, pool)
        parts.append(part)
        table.append(_row(parts[0], part, number, polished))
        run.storage.put("rounds.json", to_json(table))  # for other programs; each row is read from its round
        return part

    ended = ""
    while not ended:
        number = len([row for row in table if not row["polished"]])
        part = complete(open_round(run, number, parts[best_of_last_round(table)].uri if table else ""), number)
        ended = reason_to_end(config, table)
        if config.polish.generations and not ended_early(ended):
            complete(open_polished(run, part, number), number, polished=True)
            ended = reason_to_end(config, table)
    log.info("rounds end: %s", ended)
    return [stage_function("score")(parts[best_of(table)], pool)]


def open_round(run: Run, number: int, before: str) -> Run:
    """The run of this round, started if necessary. Only the last part can be extended: others are built upon."""
    uri = f"{run.uri}/round-{number:03}"
    built_upon = number + 1 < run.config.rounds.count or open_run(uri + POLISHED) is not None
    existing = open_run(uri) if built_upon else None
    part = existing or start_run(uri, run.preset, round_config(run.config, number, before))
    return _part_of(run, part, f"round {number}")


def open_polished(run: Run, built: Run, number: int) -> Run:
    """The run in which this round's C is polished, started if necessary."""
    uri = built.uri + POLISHED
    existing = open_run(uri) if number + 1 < run.config.rounds.count else None
    wanted = polish_config(run.config, built.config, built.uri, number)
    return _part_of(run, existing or start_run(uri, run.preset, wanted, base=built.uri), f"round {number} polish")


def _part_of(run: Run, part: Run, name: str) -> Run:
    part.tell = _named(run.tell, name, DiskSpaceCheck(part.config, part.storage))
    part.cpus = run.cpus
    return part


def parts_of(run: Run) -> list[Run]:
    """The rounds and polished rounds so far in order, including the current one; empty for a run without rounds."""
    found, number = list[Run](), 0
    while (part := open_run(f"{run.uri}/round-{number:03}")) is not None:
        polished = open_run(part.uri + POLISHED)
        found += [part] if polished is None else [part, polished]
        number += 1
    return found


def rounds_of(run: Run) -> list[Run]:
    """The rounds without the polished ones."""
    return [part for part in parts_of(run) if not part.uri.endswith(POLISHED)]


def is_complete(run: Run) -> bool:
    """Whether everything that `iterate` makes exists, including the score."""
    config, parts = run.config, parts_of(run)
    rows = [row_of(part) for part in parts]
    if not (rows and all(rows)):
        return False
    ended = reason_to_end(config, rows)
    if config.polish.generations and not ended_early(ended):
        last = rows[-1]
        if not last["polished"] or last["generations"] < config.polish.generations:
            return False
    return bool(ended) and all(status.complete for status in stage_statuses(parts[best_of(rows)]).values())


def best_of(table: Sequence[Row]) -> int:
    """The index of the row with the best-validated C."""
    return max(range(len(table)), key=lambda at: table[at]["validation"])


def best_of_last_round(table: Sequence[Row]) -> int:
    """The same among the parts of the last round, whose V and M have seen the most."""
    last = [at for at, row in enumerate(table) if row["round"] == table[-1]["round"]]
    return max(last, key=lambda at: table[at]["validation"])


def row_of(part: Run) -> Row:
    """The metrics of a complete round, or {}."""
    return read(part.storage, "round.json", ROW, CURE) or {}


def round_config(config: Config, number: int, before: str) -> Config:
    """The config of one round: the first as given, each later one with the overrides of `rounds`.

    `before` is the URI of the run that a later round builds on.
    """
    if number == 0:  # there is no M yet to be curious with
        return replace(config, collect=replace(config.collect, curiosity=0.0), rounds=Rounds(), polish=Polish())
    rounds = config.rounds
    own = with_overrides(config, rounds.overrides)
    # The sigma of a polish is one along components, which says nothing about all weights.
    sigma = config.evolve.sigma0 if config.polish.generations else 0.0
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
            init_sigma=rounds.overrides.get("evolve.init-sigma", 0.0 if rounds.fresh else sigma),
            refit=rounds.overrides.get("evolve.refit", False),
            seed=own.evolve.seed + number,
        ),
        rounds=Rounds(),
        polish=Polish(),
    )


def polish_config(config: Config, built: Config, uri: str, number: int) -> Config:
    """The config of polishing the round at this URI, made with `built`, with the overrides of `polish`.

    The better C is, the smaller the differences between candidates: each round doubles the episodes up to
    `max_episodes`, which halves the variance of a score, and divides sigma by the root of two.
    """
    own = with_overrides(built, {"evolve.refit": False, **config.polish.overrides})
    doublings = 0
    while own.evolve.episodes << (doublings + 1) <= config.polish.max_episodes and doublings < number:
        doublings += 1
    evolve = replace(
        own.evolve,
        init=uri,
        seed=built.evolve.seed + 1,
        episodes=own.evolve.episodes << doublings,
        init_sigma=own.evolve.init_sigma / 2 ** (doublings / 2),
    )
    return replace(own, evolve=evolve, workers=config.workers)


def _named(tell: Callable[[Progress], None], name: str, check: DiskSpaceCheck) -> Callable[[Progress], None]:
    def named(progress: Progress) -> None:
        check.tell(progress)
        tell(replace(progress, stage=f"{name} {progress.stage}"))

    return named


def ended_early(reason: str) -> bool:
    """Whether the rounds end before the configured number of them is complete."""
    return bool(reason) and reason != ALL


def reason_to_end(config: Config, table: Sequence[Row]) -> str:
    """Why no further round starts after these parts, or "" if one does."""
    rounds, last = config.rounds, table[-1]
    if rounds.target and last["validation"] >= rounds.target:
        return f"the validation has reached the target {rounds.target:g}"
    if rounds.env_steps and last["env_steps"] >= rounds.env_steps:
        return f"{last['env_steps']:,} steps are played, the budget is {rounds.env_steps:,}"
    whole = last["polished"] or not config.polish.generations
    before = [row for row in table if row["round"] < last["round"]]
    if config.evolve.plateau and whole and before:
        now, best = table[best_of_last_round(table)], before[best_of(before)]
        if now["validation"] - best["validation"] <= now["validation_se"]:
            return f"round {last['round']} is not better than those before by more than its standard error"
    return ALL if last["round"] + 1 >= rounds.count else ""


def _row(first: Run, part: Run, number: int, polished: bool) -> Row:
    """The metrics of a round, stored in it and measured again only if its C has changed."""
    evolved = part.need("evolve")
    known, made = row_of(part), {"evolve": evolved.digest, "generations": evolved.extent}
    if known.items() >= made.items():
        return known
    row = {"round": number, "polished": polished, **made, **round_metrics(first, part, number)}
    part.storage.put("round.json", sealed(row, "round.json"))
    return row
