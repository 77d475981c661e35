"""The score: C's best-validated mean, on whole episodes of the unmodified game that nothing else has seen."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from wm.agents.artifacts import parts
from wm.agents.trained import Trained, of_run
from wm.config.schema import Config
from wm.envs import load
from wm.evolution.evaluation import DreamUnit, EvaluateWork, GameUnit
from wm.pool import Crew, Pool, Progress
from wm.runs.run import Manifest, Run, Stage
from wm.runs.storage import to_json
from wm.seeds import derive, test_episode

DREAMS = 64  # that are dreamt as one unit of work


def score(config: Config, run: Run, pool: Pool) -> Manifest:
    """The score of the run's own agent."""
    stage_of_c = parts(config, run)[0]
    if stage_of_c.complete(config.evolve.generations) is None:
        run.need("evolve", config.evolve.generations, "evolve")  # says what to do
    return score_of(of_run(run), config, run, pool)


def score_of(trained: Trained, config: Config, run: Run, pool: Pool) -> Manifest:
    """Mean, standard deviation and standard error of any agent over so many test episodes."""
    stage = run.stage("score", of=trained.digest)
    done = stage.complete(config.score.episodes)
    if done is not None:
        return done
    stage.begin()
    played = _known(run, stage)
    total = config.score.episodes

    def tell() -> None:
        scores = [played[number]["score"] for number in sorted(played) if number < total]
        metrics = {"mean": float(np.mean(scores))} if scores else {}
        stage.tell(Progress("score", len(scores), total, "episodes", metrics))

    tell()
    starts = trained.starts if config.evolve.where == "dream" else None
    # Whole dreams, however short those were in which C learned: one to the last step of the game.
    whole = replace(config, evolve=replace(config.evolve, dream_steps=load(config.game).max_steps))
    with pool.crew(EvaluateWork(whole, trained.vision.encoder_only(), trained.memory, starts, exact=True)) as crew:
        for unit, episodes in crew.map(_games(config, trained.theta, played)):
            first = unit.first
            records = {first + index: asdict(episode) for index, episode in enumerate(episodes)}
            run.storage.commit(stage.key(f"{first:07d}.json"), to_json(records))
            played |= records
            tell()
        dreamt = _dream(config, trained.theta, crew) if starts else {}
    scores = np.array([played[number]["score"] for number in range(total)])
    return stage.commit(
        total,
        inputs={trained.origin: trained.digest},
        content={"episodes": [played[number] for number in range(total)]},
        metrics={
            "score": float(scores.mean()),
            "std": float(scores.std(ddof=1)) if total > 1 else 0.0,
            "se": float(scores.std(ddof=1) / np.sqrt(total)) if total > 1 else 0.0,
            "episodes": total,
            "first_seed": test_episode(config.score.seed),
            "env_steps": int(sum(played[number]["steps"] for number in range(total))),
        }
        | dreamt,
    )


def _games(config: Config, theta: np.ndarray, played: dict[int, Any]) -> Iterator[GameUnit]:
    """Whole units, so that what an episode's neighbours are is fixed; the last may play more than was asked for."""
    section, limit = config.score, load(config.game).max_steps
    for first in range(0, section.episodes, section.unit_episodes):
        if first in played:
            continue
        episodes = range(first, first + section.unit_episodes)
        yield GameUnit(
            name=f"score, episodes from {first}",
            thetas=theta[None],
            owner=(0,) * len(episodes),
            seeds=tuple(test_episode(section.seed + episode) for episode in episodes),
            steps=limit,
            patience=0,
            noise=derive("score", section.seed + first),
            first=first,
        )


def _dream(config: Config, theta: np.ndarray, crew: Crew) -> dict[str, Any]:
    """The same C in as many dreams from first frames on: what it was promised, beside what it got."""
    section, scores = config.score, dict[int, np.ndarray]()
    units = [
        DreamUnit(
            name=f"score, dreams from {first}",
            thetas=theta[None],
            seed=derive(section.seed, "score", "dream", first),
            episodes=min(DREAMS, section.episodes - first),
            first=first,
        )
        for first in range(0, section.episodes, DREAMS)
    ]
    for unit, (returns, _) in crew.map(units):
        scores[unit.first] = returns[0].astype(float)
    dreamt = np.concatenate([scores[first] for first in sorted(scores)])
    return {
        "dream_score": float(dreamt.mean()),
        "dream_std": float(dreamt.std(ddof=1)) if len(dreamt) > 1 else 0.0,
        "dream_episodes": len(dreamt),
    }


def _known(run: Run, stage: Stage) -> dict[int, Any]:
    """Episodes that were played before: number -> what came of it."""
    known: dict[int, Any] = {}
    for key in run.storage.sizes(stage.folder):
        if key.rpartition("/")[2].removesuffix(".json").isdigit():
            records = json.loads(run.storage.get(key) or b"{}")
            known |= {int(number): record for number, record in records.items()}
    return known
