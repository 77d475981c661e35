"""Rollouts in the real game, written as Parquet shards by the workers themselves.

They are random, or driven by an agent; an agent's rollouts are added to those of the run that it comes from.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wm.agents.artifacts import load_models, load_theta
from wm.config.schema import Collect
from wm.envs import FRAME, Game, load
from wm.envs.rollout import EnvironmentCache, ScriptedPolicy, play
from wm.errors import UserError
from wm.models.agent import Agent, Models
from wm.models.curiosity import CuriousAgent
from wm.pool import Pool
from wm.runs.manifest import Manifest
from wm.runs.run import Run, open_existing
from wm.runs.shards import ShardWriter, frame_column, rollout_schema, vector_column
from wm.runs.storage import open_storage
from wm.seeds import derive, generator, training_episode
from wm.stages.sharding import make_shards, record, restore
from wm.statistics import mean_of


def collect(run: Run, pool: Pool) -> Manifest:
    """As many episodes as the config wants; existing ones are kept."""
    config, section, stage = run.config, run.config.collect, run.stage("collect")
    driver = Driver.of(section.agent) if section.agent else None
    if driver and section.curiosity and driver.nll is None:
        raise UserError(f"--collect.curiosity needs an M, which the agent in {section.agent} lacks: remove it")
    work = CollectWork(load(config.game), section, config.seed, config.threads, run.uri, stage.key("shards"), driver)
    done = stage.complete()
    if done is not None:
        restore(done, run, stage, work, pool)
        return done
    stage.begin()
    records = make_shards(run, stage, work, pool, section.episodes // section.unit_episodes)
    score = mean_of([episode["score"] for record in records for episode in record["episodes"]])
    return stage.commit(
        section.episodes,
        inputs={"earlier": driver.rollouts, "evolve": driver.digest} if driver else {},
        content={"shards": records} | ({"earlier": driver.rollouts} if driver else {}),
        metrics={
            "frames": sum(sum(record["lengths"]) for record in records),
            "bytes": sum(record["bytes"] for record in records),
            "score": score.mean,
            "score_std": score.std,
        },
    )


@dataclass(frozen=True)
class Driver:
    """The agent of a run, and the digest of the rollouts that it was trained on."""

    models: Models
    theta: np.ndarray  # (N,)
    nll: float | None  # M's held-out NLL per dimension
    digest: str  # of the evolution that made it
    rollouts: str  # digest of its run's collect stage

    @staticmethod
    def of(uri: str) -> "Driver":
        run = open_existing(uri)
        models, _ = load_models(run)
        made, rollouts = run.stage("evolve").manifest(), run.need("collect")
        if made is None:
            raise run.missing("evolve")
        nll = run.need("memory").metrics["held_out_nll"] if models.memory is not None else None
        return Driver(models.without_decoder(), load_theta(made), nll, made.digest, rollouts.digest)

    def agent(self, section: Collect, seed: int, episodes: range, game: Game) -> Agent:
        """The agent for these episodes. Each draws its share of the noise, so that some are good and some bad."""
        rngs = [generator(seed, "explore", episode) for episode in episodes]
        noise = [section.action_noise * rng.random() for rng in rngs]
        spread = [section.weight_noise * rng.random() * rng.standard_normal(self.theta.size) for rng in rngs]
        thetas, owner = self.theta + np.stack(spread), range(len(episodes))
        noise_seed = derive(seed, "collect", "noise", episodes.start)
        if not section.curiosity:
            return self.models.agent(thetas, owner, game.squash, seed=noise_seed, noise=noise)
        assert self.nll is not None, "curiosity needs an M"
        m = self.models
        return CuriousAgent(
            *(m.vision, m.memory, m.controller, thetas, owner, game.squash),
            latent=m.latent,
            seed=noise_seed,
            noise=noise,
            weight=section.curiosity,
            usual=self.nll,
        )


@dataclass(frozen=True)
class CollectWork:
    """Play one unit's episodes in a batch and write them as one shard."""

    game: Game
    section: Collect
    seed: int
    threads: int
    uri: str
    folder: str
    driver: Driver | None = None

    def build(self) -> Callable[[int], dict[str, Any]]:
        game, section, storage = self.game, self.section, open_storage(self.uri)
        environments = EnvironmentCache(game.make)

        def do(unit: int) -> dict[str, Any]:
            first = unit * section.unit_episodes
            numbers = range(first, first + section.unit_episodes)
            seeds = tracks(self.seed, numbers, self.driver)
            episodes = [Recording(section.steps, game.actions) for _ in seeds]
            policy = self.policy(numbers)

            def record_step(episode: int, *step: Any) -> None:
                if isinstance(policy, CuriousAgent):
                    episodes[episode].add_reward(policy.bonus[episode])
                episodes[episode].add(*step)

            batch = environments.of(len(seeds))
            played = play(batch, seeds, policy, section.steps, record=record_step, patience=section.patience)
            about = {
                "game": game.name,
                "frames": game.version,
                "policy": f"agent {self.driver.digest[:12]}" if self.driver else section.policy,
                "seeds": json.dumps(seeds),
            }
            if isinstance(policy, CuriousAgent):
                about["reward"] = str(policy)
            writer = ShardWriter(rollout_schema(game.actions, about))
            for episode, recording in enumerate(episodes, first):
                writer.add(recording.columns(episode))
            data = writer.finish()
            key = f"{self.folder}/{unit:06d}.parquet"
            storage.put(key, data)  # the same bytes, if it already exists
            lengths = [episode.steps for episode in played]
            return record(key, data, lengths, episodes=[asdict(episode) for episode in played])

        return do

    def policy(self, episodes: range) -> Agent | ScriptedPolicy:
        """The agent, or random actions that follow from the run's seed and the episodes' numbers. (E, T, A)"""
        if self.driver:
            return self.driver.agent(self.section, self.seed, episodes, self.game)
        rngs = [generator(self.seed, "explore", episode) for episode in episodes]
        scripts = [self.game.explore(self.section.policy, self.section.steps, rng) for rng in rngs]
        return ScriptedPolicy(np.stack(scripts))


def tracks(seed: int, episodes: range, driver: Driver | None = None) -> list[int]:
    """Seeds of the game; each agent plays other tracks."""
    drivers = [driver.digest] if driver else []
    return [training_episode(seed, "collect", *drivers, episode) for episode in episodes]


class Recording:
    """The rows of one episode, added step by step."""

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

    def add_reward(self, bonus: float) -> None:
        """Add to the reward of the last step, if there is one: a curiosity bonus is known one step later."""
        if self.length:
            self.rewards[self.length - 1] += bonus

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
