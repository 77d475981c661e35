"""Random rollouts in the real game, written as Parquet shards by the workers themselves."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wm import place as places
from wm.config import Config
from wm.envs import FRAME, load
from wm.pool import Pool
from wm.rollout import Fleet, Scripted, play
from wm.run import Manifest, Run
from wm.seeds import generator, training_episode
from wm.shards import ShardWriter, frame_column, rollout_schema, vector_column
from wm.stages.sharded import make_shards, record, restore


def collect(config: Config, run: Run, pool: Pool) -> Manifest:
    """As many episodes as the config says; those that are there already are left as they are."""
    section, stage = config.collect, run.stage("collect")
    work = Collecting(config, run.uri, stage.folder)
    done = stage.complete(section.episodes)
    if done is not None:
        restore(done, run, stage, work, pool)
        return done
    start = time.monotonic()
    records = make_shards(run, stage, work, pool, section.episodes // section.unit_episodes)
    scores = [episode["score"] for record in records for episode in record["episodes"]]
    return stage.commit(
        section.episodes,
        inputs={},
        content={"shards": records},
        metrics={
            "frames": sum(sum(record["lengths"]) for record in records),
            "bytes": sum(record["bytes"] for record in records),
            "score": float(np.mean(scores)),
            "score_std": float(np.std(scores)),
        },
        seconds=time.monotonic() - start,
    )


@dataclass(frozen=True)
class Collecting:
    """Play one unit's episodes side by side and write them as one shard."""

    config: Config
    uri: str
    folder: str

    @property
    def threads(self) -> int:
        return self.config.threads

    def build(self) -> Callable[[int], dict[str, Any]]:
        game, place, section = load(self.config.game), places.at(self.uri), self.config.collect
        fleet = Fleet(game.make)

        def do(unit: int) -> dict[str, Any]:
            first = unit * section.unit_episodes
            seeds, scripts = plan(self.config, range(first, first + section.unit_episodes))
            episodes = [Recording(section.steps, game.actions) for _ in seeds]
            played = play(
                fleet.of(len(seeds)),
                seeds,
                Scripted(scripts),
                section.steps,
                record=lambda episode, *step: episodes[episode].add(*step),
            )
            about = {
                "game": game.name,
                "frames": game.version,
                "policy": section.policy,
                "seeds": json.dumps(seeds),
            }
            writer = ShardWriter(rollout_schema(game.actions, about))
            for episode, recording in enumerate(episodes, first):
                writer.add(recording.columns(episode))
            data = writer.finish()
            key = f"{self.folder}/{unit:06d}.parquet"
            place.put(key, data)  # the same bytes, should it be there already
            lengths = [episode.steps for episode in played]
            return record(key, data, lengths, episodes=[asdict(episode) for episode in played])

        return do


def plan(config: Config, episodes: range) -> tuple[list[int], np.ndarray]:
    """The episodes' seeds and scripts of actions (E, T, A): pure functions of the run's seed and their numbers."""
    game, section = load(config.game), config.collect
    seeds = [training_episode(config.seed, "collect", episode) for episode in episodes]
    scripts = [
        game.explore(section.policy, section.steps, generator(config.seed, "explore", episode)) for episode in episodes
    ]
    return seeds, np.stack(scripts)


class Recording:
    """One episode's rows, gathered step by step."""

    def __init__(self, steps: int, actions: int):
        self.frames = np.empty((steps, *FRAME), np.uint8)
        self.actions = np.empty((steps, actions), np.float32)
        self.rewards = np.empty(steps)
        self.ends = np.zeros((2, steps), bool)
        self.length = 0

    def add(self, frame: np.ndarray, action: np.ndarray, reward: float, terminated: bool, truncated: bool) -> None:
        at = self.length
        self.frames[at], self.actions[at], self.rewards[at] = frame, action, reward
        self.ends[:, at] = terminated, truncated
        self.length += 1

    def columns(self, episode: int) -> dict[str, Any]:
        length = self.length
        return {
            "episode": np.full(length, episode, np.int64),
            "step": np.arange(length, dtype=np.int32),
            "frame": frame_column(self.frames[:length]),
            "action": vector_column(self.actions[:length]),
            "reward": self.rewards[:length],
            "terminated": self.ends[0, :length],
            "truncated": self.ends[1, :length],
        }
