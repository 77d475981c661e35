"""Iterative training (section 5): the agent collects what its world model learns from next.

The first round is the pipeline on random rollouts. In each further one the agent of the round before drives, with some
noise; V is refined and M trained further on all rollouts so far, so that neither forgets; C goes on in the new M. At
the end the best round's C may be polished: V and M stay, and it goes on along principal components of what it sees.
Each round is an ordinary run, `round-000`, `round-001`, `round-001-polished`, and can be looked at, continued and built
upon as such.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from wm.agents.artifacts import load_vision, parts
from wm.agents.card import env_steps
from wm.agents.so_far import best_agent
from wm.agents.trained import Trained
from wm.config.schema import Config, Polish, Rounds
from wm.dream.population import Dream
from wm.envs import load
from wm.experiments.coverage import LatentGrid, coverage
from wm.experiments.disk_space import DiskSpaceCheck
from wm.experiments.vision_metrics import standardised
from wm.models.memory import nll
from wm.models.vision import draw
from wm.pipeline import STAGES
from wm.pool import Pool, Progress
from wm.runs.datasets import rollouts
from wm.runs.run import Manifest, Run, open_run, start_run
from wm.runs.shards import DataSet
from wm.runs.status import stage_statuses
from wm.runs.storage import to_json
from wm.seeds import derive
from wm.stages.score import score
from wm.training.learner import split

PREPARING = STAGES[:-1]  # all but the score, which is taken once, of the best round
HELD = 8  # held-out episodes of each round that M is measured on, at most
POLISHED = "-polished"  # after a round's URI
DREAMS = 32  # that C is given, to set beside its real score


def iterate(config: Config, run: Run, pool: Pool) -> list[Manifest]:
    """Round after round, until the target, the budget or the number of rounds is reached; then the best one's score.

    Where it isn't enough by then, the best round is polished first.
    """
    second = round_config(config, run.uri, 1).check()  # or else it comes to light after the first round
    if config.polish.generations:
        polished_config(config, second, run.uri).check()
    parts, table = list[Run](), list[dict[str, Any]]()

    def complete(part: Run, number: int, polished: bool = False) -> None:
        for stage in PREPARING:
            stage(part.config, part, pool)
        parts.append(part)
        table.append(_row(run, part, number, polished))
        run.storage.put("rounds.json", to_json(table))

    for number in range(config.rounds.count):
        complete(a_round(config, run, number), number)
        if enough(config.rounds, table):
            break
    if config.polish.generations and not enough(config.rounds, table):
        number = best_of(table)
        complete(polished(config, run, parts[number]), number, polished=True)
    part = parts[best_of(table)]
    return [score(part.config, part, pool)]


def a_round(config: Config, run: Run, number: int) -> Run:
    """The run of this round, begun if need be. Only the last one is taken further: the others have been built upon."""
    uri, wanted = f"{run.uri}/round-{number:03}", round_config(config, run.uri, number)
    built_upon = number + 1 < config.rounds.count or open_run(uri + POLISHED) is not None
    there = open_run(uri) if built_upon else None
    return _part_of(run, there or start_run(uri, run.preset, wanted), f"round {number}")


def polished(config: Config, run: Run, built: Run) -> Run:
    """The run in which this round's C is polished, begun if need be."""
    uri, wanted = built.uri + POLISHED, polished_config(config, built.config, built.uri)
    return _part_of(run, start_run(uri, run.preset, wanted, base=built.uri), "polish")


def _part_of(run: Run, part: Run, name: str) -> Run:
    part.tell = _named(run.tell, name, DiskSpaceCheck(part.config, part.storage))
    part.cpus = run.cpus
    return part


def begun(run: Run) -> list[Run]:
    """Its rounds so far, the one under way included; none of a run that was made in one go."""
    found: list[Run] = []
    while (part := open_run(f"{run.uri}/round-{len(found):03}")) is not None:
        found.append(part)
    return found


def polished_so_far(rounds: Sequence[Run]) -> list[Run]:
    """What was polished of these, what is under way included."""
    return [part for one in rounds if (part := open_run(one.uri + POLISHED)) is not None]


def iterated(run: Run) -> bool:
    """Whether all is there that `iterate` makes, the score included."""
    config, parts = run.config, begun(run)
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
    return all(station.complete for station in stage_statuses(parts[best]))


def best_of(table: Sequence[dict[str, Any]]) -> int:
    """Which of these rows has the best C."""
    return max(range(len(table)), key=lambda at: table[at]["validation"])


def row_of(part: Run) -> dict[str, Any]:
    """What was found of a complete round."""
    return json.loads(part.storage.get("round.json") or b"{}")


def round_config(config: Config, uri: str, number: int) -> Config:
    """The config of one round: the first is as given, each other one builds on the one before."""
    if number == 0:  # there is no M yet to be curious with
        return replace(config, collect=replace(config.collect, curiosity=0.0), rounds=Rounds(), polish=Polish())
    rounds, before = config.rounds, f"{uri}/round-{number - 1:03}"
    unit = math.gcd(config.collect.unit_episodes, rounds.episodes)
    vision = replace(config.vision, init=before, steps=rounds.vision_steps or 1, frozen=rounds.vision_steps == 0)
    return replace(
        config,
        collect=replace(
            config.collect,
            agent=before,
            episodes=rounds.episodes,
            steps=load(config.game).max_steps,
            unit_episodes=unit,
        ),
        vision=vision,
        memory=replace(
            config.memory,
            init=before,
            steps=rounds.memory_steps,
            learning_rate=rounds.memory_learning_rate or config.memory.learning_rate,
        ),
        evolve=replace(
            config.evolve,
            init="" if rounds.fresh else before,
            init_sigma=rounds.sigma,
            covariance=config.evolve.covariance if rounds.fresh else rounds.covariance,
            refit=rounds.refit,
            generations=rounds.generations,
            seed=config.evolve.seed + number,
        ),
        rounds=Rounds(),
        polish=Polish(),
    )


def polished_config(config: Config, built: Config, uri: str) -> Config:
    """Like the round at this URI, which was made with the config `built`, but for the way in which C goes on."""
    polish = config.polish
    return replace(
        built,
        evolve=replace(
            built.evolve,
            init=uri,
            init_sigma=polish.sigma,
            refit=False,
            generations=polish.generations,
            population=polish.population,
            episodes=polish.episodes,
            components=polish.components,
            covariance="full",  # of so few numbers all can be learned
            cut=polish.cut,
            hardness=polish.hardness,
            seed=built.evolve.seed + 1,
        ),
        workers=config.workers,
    )


def _named(tell: Callable[[Progress], None], name: str, lookout: DiskSpaceCheck) -> Callable[[Progress], None]:
    def told(progress: Progress) -> None:
        lookout.tell(progress)
        tell(replace(progress, stage=f"{name} {progress.stage}"))

    return told


def enough(rounds: Rounds, table: Sequence[dict[str, Any]]) -> bool:
    """Whether the last of these rows is good or dear enough to stop there."""
    last = table[-1]
    reached = rounds.target and last["validation"] >= rounds.target
    cost_of = rounds.env_steps and last["env_steps"] >= rounds.env_steps
    return bool(reached or cost_of)


def _row(run: Run, part: Run, number: int, polished: bool) -> dict[str, Any]:
    """What there is to say of a round: how C drives, what it dreams of, what was visited, what M foresees of it."""
    evolved = parts(part.config, part)[0].manifest()
    assert evolved is not None
    known, made = row_of(part), {"evolve": evolved.digest, "generations": evolved.extent}
    if known.items() >= made.items():
        return known
    trained = best_agent(part)
    collected = part.need("collect", part.config.collect.episodes, "collect")
    data = rollouts(collected)
    held = dict(_held(data, part.config))
    row = {
        "round": number,
        "polished": polished,
        **made,
        "env_steps": env_steps(part),
        "validation": evolved.metrics["best_validation"],
        "validation_se": evolved.metrics["best_validation_se"],
        "driven": collected.metrics["score"],  # by who collected, with all the noise
        "dream": dreamt(trained),
        "coverage": coverage(collected, trained.game, _first_eyes(run)),
        "nll": {f"round-{other:03}": held_out_nll(trained, data, episodes) for other, episodes in held.items()},
    }
    if number in held:  # what the first round's M would make of this round's driving
        first = begun(run)[0]
        row["nll_before"] = held_out_nll(best_agent(first), data, held[number]) if number else row["nll"]["round-000"]
    part.storage.put("round.json", to_json(row))
    return row


def dreamt(trained: Trained) -> dict[str, float]:
    """What the same C gets in dreams as long as the game: far above the real score, it lives on what isn't so."""
    world = trained.world(dropout=0.0)
    dream = Dream(world, trained.controller)
    returns = dream.rollout(trained.theta[None], derive("round", "dream"), DREAMS)[0][0].astype(float)
    return {"mean": float(returns.mean()), "se": float(returns.std(ddof=1) / np.sqrt(DREAMS))}


def _first_eyes(run: Run) -> LatentGrid:
    """The first round's: coverage counts in the same cells in all rounds."""
    part = begun(run)[0]
    made = part.need("vision", part.config.vision.steps, "train_vision")
    latents = part.need("latents", part.config.collect.episodes, "encode", of=made.digest)
    return LatentGrid.of(load_vision(made), latents)


def _held(data: DataSet, config: Config) -> list[tuple[int, np.ndarray]]:
    """Held-out episodes by the round that they were collected in."""
    rounds = {uri: number for number, uri in enumerate(dict.fromkeys(file.storage.uri for file in data.files))}
    number_of = np.array([rounds[file.storage.uri] for file, _ in data.episodes])
    _, test = split(len(data.lengths), config.memory.held_out)
    found = [(number, test[number_of[test] == number][:HELD]) for number in rounds.values()]
    return [(number, episodes) for number, episodes in found if len(episodes)]


@torch.inference_mode()
def held_out_nll(trained: Trained, data: DataSet, episodes: np.ndarray) -> dict[str, float]:
    """M's NLL a dimension on these episodes, mean and error; z scaled to unit variance, to compare between V's."""
    assert trained.memory is not None
    values, seen = [], []
    for episode in episodes:
        found = data.read(int(episode), ["frame", "action"])
        parts = [trained.vision.encode(part) for part in torch.from_numpy(found["frame"].copy()).split(64)]
        mu, logvar = (torch.cat(part) for part in zip(*parts, strict=True))  # (T, Z)
        generator = torch.Generator().manual_seed(derive("held out", int(episode)) % 2**63)
        z = draw(mu, logvar, torch.randn(mu.shape, generator=generator))
        a = torch.from_numpy(found["action"].copy())
        not_done = torch.zeros(1, len(z)) if trained.memory.previous_done else None
        prediction, _ = trained.memory(z[None], a[None], previous_done=not_done)
        values.append(float(nll(prediction, torch.roll(z, -1, dims=0)[None])[0, :-1].mean()))
        seen.append((mu, logvar))
    mu, logvar = (torch.cat(part) for part in zip(*seen, strict=True))
    scaled = np.array([standardised(value, mu, logvar) for value in values])
    error = scaled.std(ddof=1) / np.sqrt(len(scaled)) if len(scaled) > 1 else 0.0
    return {"mean": float(scaled.mean()), "se": float(error)}
