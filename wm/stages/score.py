"""Score an agent on whole episodes of the unmodified game, on seeds that nothing else uses."""

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from wm.agents.trained import Trained, of_run
from wm.config.schema import Score
from wm.dream.rules import rules_of
from wm.envs import Game
from wm.evolution.evaluation import DreamUnit, EvaluateWork, GameUnit
from wm.pool import Crew, Pool, Progress
from wm.runs.cures import remake
from wm.runs.manifest import EPISODE, Manifest
from wm.runs.reader import Damaged, read, sealed
from wm.runs.run import Run, Stage
from wm.runs.storage import Storage
from wm.schemas import HASH, integer, record, sequence
from wm.seeds import derive, test_episode
from wm.statistics import mean_of
from wm.training.tensorboard import event_file

log = logging.getLogger(__name__)

DREAMS = 64  # dreams in a unit of work


def score(run: Run, pool: Pool) -> Manifest:
    """The score of the run's own agent."""
    run.need("evolve")
    return score_agent(of_run(run), run, pool)


def score_agent(trained: Trained, run: Run, pool: Pool) -> Manifest:
    """Mean, standard deviation and standard error of any agent on the test episodes that the run's config wants."""
    config, stage, game = run.config, run.stage("score", of=trained.digest), trained.game
    done = stage.complete()
    if done is not None:
        return done
    stage.begin()
    played = _already_played(stage, trained.digest)
    total = config.score.episodes

    def tell() -> None:
        scores = [played[number]["score"] for number in sorted(played) if number < total]
        metrics = {"mean": float(np.mean(scores))} if scores else {}
        stage.tell(Progress("score", len(scores), total, "episodes", metrics))

    tell()
    starts = trained.starts if config.evolve.where == "dream" else None
    # Whole dreams, even if C was trained in shorter ones: from a first frame to the last step of the game.
    rules = replace(rules_of(config, game), steps=game.max_steps) if starts else None
    work = EvaluateWork(game, trained.models.without_decoder(), config.threads, rules=rules, starts=starts, exact=True)
    with pool.crew(work) as crew:
        for unit, episodes in crew.map(_game_units(config.score, game, trained.theta, played)):
            found = [asdict(episode) for episode in episodes]
            values = {"agent": trained.digest, "first": unit.first, "episodes": found}
            key = stage.key(f"{unit.first:07d}.json")
            run.storage.commit(key, sealed(values, key))
            played |= enumerate(found, unit.first)
            tell()
        dreamed = _dream(config.score, trained.theta, crew) if starts else {}
    result = mean_of([played[number]["score"] for number in range(total)])
    row = {"step": 0, "time": time.time(), "eval/mean_reward": result.mean, "se": result.error, "std": result.std}
    run.storage.put(stage.key("events.out.tfevents.0.score"), event_file("score", [row]))
    return stage.commit(
        total,
        inputs={trained.origin: trained.digest},
        content={"episodes": [played[number] for number in range(total)]},
        metrics={
            "score": result.mean,
            "std": result.std,
            "se": result.error,
            "episodes": total,
            "first_seed": test_episode(config.score.seed),
            "env_steps": int(sum(played[number]["steps"] for number in range(total))),
        }
        | _cut(game, [played[number] for number in range(total)])
        | dreamed,
    )


def _cut(game: Game, episodes: list[dict[str, Any]]) -> dict[str, int]:
    """How many episodes were cut at a limit that is not the game's own, so that their scores are not whole."""
    if game.own_limit:
        return {}
    cut = sum(episode["steps"] >= game.max_steps and not episode["terminated"] for episode in episodes)
    if cut:
        log.warning(
            "score: %d of %d episodes were cut at %d steps, since %s has no limit of its own: set one by"
            " --game '%s%smax_episode_steps=N'",
            *(cut, len(episodes), game.max_steps, game.name, game.name, "&" if "?" in game.name else "?"),
        )
    return {"cut": cut, "cut_at": game.max_steps}


def _game_units(section: Score, game: Game, theta: np.ndarray, played: dict[int, Any]) -> Iterator[GameUnit]:
    """Whole units, so that each episode always has the same batch; the last one may have more episodes than needed."""
    for first in range(0, section.episodes, section.unit_episodes):
        if first in played:
            continue
        episodes = range(first, first + section.unit_episodes)
        yield GameUnit(
            name=f"score, episodes from {first}",
            thetas=theta[None],
            owner=(0,) * len(episodes),
            seeds=tuple(test_episode(section.seed + episode) for episode in episodes),
            steps=game.max_steps,
            patience=0,
            noise=derive("score", section.seed + first),
            first=first,
        )


def _dream(section: Score, theta: np.ndarray, crew: Crew) -> dict[str, Any]:
    """The score of the same C in as many dreams from first frames, to compare with its score in the game."""
    returns = dict[int, np.ndarray]()
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
    for unit, (found, _) in crew.map(units):
        returns[unit.first] = found[0].astype(float)
    result = mean_of(np.concatenate([returns[first] for first in sorted(returns)]))
    return {"dream_score": result.mean, "dream_std": result.std, "dream_episodes": section.episodes}


RECORD = record({"agent": HASH, "first": integer(), "episodes": sequence(EPISODE)})


def _already_played(stage: Stage, agent: str) -> dict[int, Any]:
    """Episodes played by earlier jobs, by number."""
    known: dict[int, Any] = {}
    storage, section = stage.run.storage, stage.run.config.score
    for key in storage.sizes(stage.folder):
        if is_record(key) and (values := read_record(storage, key)) is not None:
            seeds = [episode["seed"] for episode in values["episodes"]]
            numbers = range(values["first"], values["first"] + len(seeds))
            if values["agent"] != agent or seeds != [test_episode(section.seed + number) for number in numbers]:
                raise Damaged(f"{storage.uri}/{key}", "it is of another agent or seed", remake(storage, "score"))
            known |= zip(numbers, values["episodes"], strict=True)
    return known


def is_record(key: str) -> bool:
    """Whether this file holds the episodes of a unit."""
    return re.fullmatch(r"score/[0-9a-f]{12}/[0-9]{7}\.json", key) is not None


def read_record(storage: Storage, key: str) -> dict[str, Any] | None:
    """The agent, the number of the first episode, and the episodes."""
    cure = remake(storage, "score")
    values = read(storage, key, RECORD, cure)
    if values is not None and values["first"] != int(key[-12:-5]):
        raise Damaged(f"{storage.uri}/{key}", f"it holds the episodes from {values['first']}", cure)
    return values
