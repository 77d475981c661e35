"""The score: C's best-validated mean, on whole episodes of the unmodified game that nothing else has seen."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from wm.config import Config
from wm.envs import load
from wm.pool import Pool
from wm.run import Manifest, Progress, Run, Stage, to_json
from wm.seeds import derive, test_episode
from wm.stages.evolve import load_theta, parts
from wm.stages.games import Evaluating, Games


def score(config: Config, run: Run, pool: Pool) -> Manifest:
    """Mean, standard deviation and standard error over so many test episodes."""
    stage_of_c, _, vision, memory = parts(config, run)
    made = stage_of_c.complete(config.evolve.generations)
    if made is None:
        made = run.need("evolve", config.evolve.generations, "evolve")
    stage = run.stage("score", of=made.digest)
    done = stage.complete(config.score.episodes)
    if done is not None:
        return done
    start, theta = time.monotonic(), load_theta(made)
    played = _known(run, stage)
    total = config.score.episodes

    def tell() -> None:
        scores = [played[number]["score"] for number in sorted(played) if number < total]
        metrics = {"mean": float(np.mean(scores))} if scores else {}
        run.tell(Progress("score", len(scores), total, "episodes", metrics))

    tell()
    with pool.crew(Evaluating(config, vision, memory, exact=True)) as crew:
        for unit, episodes in crew.map(_games(config, theta, played)):
            first = unit.first
            records = {first + index: asdict(episode) for index, episode in enumerate(episodes)}
            run.place.commit(stage.key(f"{first:07d}.json"), to_json(records))
            played |= records
            tell()
    scores = np.array([played[number]["score"] for number in range(total)])
    return stage.commit(
        total,
        inputs={"evolve": made.digest},
        content={"episodes": [played[number] for number in range(total)]},
        metrics={
            "score": float(scores.mean()),
            "std": float(scores.std(ddof=1)) if total > 1 else 0.0,
            "se": float(scores.std(ddof=1) / np.sqrt(total)) if total > 1 else 0.0,
            "episodes": total,
            "first_seed": test_episode(config.score.seed),
            "env_steps": int(sum(played[number]["steps"] for number in range(total))),
        },
        seconds=time.monotonic() - start,
    )


def _games(config: Config, theta: np.ndarray, played: dict[int, Any]) -> Iterator[Games]:
    """Whole units, so that what an episode's neighbours are is fixed; the last may play more than was asked for."""
    section, limit = config.score, load(config.game).max_steps
    for first in range(0, section.episodes, section.unit_episodes):
        if first in played:
            continue
        episodes = range(first, first + section.unit_episodes)
        yield Games(
            name=f"score, episodes from {first}",
            thetas=theta[None],
            owner=(0,) * len(episodes),
            seeds=tuple(test_episode(section.seed + episode) for episode in episodes),
            steps=limit,
            patience=0,
            noise=derive("score", section.seed + first),
            first=first,
        )


def _known(run: Run, stage: Stage) -> dict[int, Any]:
    """Episodes that were played before: number -> what came of it."""
    known: dict[int, Any] = {}
    for key in run.place.sizes(stage.folder):
        if key.rpartition("/")[2].removesuffix(".json").isdigit():
            records = json.loads(run.place.get(key) or b"{}")
            known |= {int(number): record for number, record in records.items()}
    return known
