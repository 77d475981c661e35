"""Rollouts in the real game, written as Parquet shards by the workers themselves.

At random, or with an agent at the wheel: then they are another round of data, beside that of the run it is from.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from wm.agents.artifacts import load_theta, parts
from wm.config.schema import Config
from wm.envs import FRAME, Game, load
from wm.envs.rollout import EnvironmentCache, ScriptedPolicy, play
from wm.errors import UserError
from wm.models.agent import Agent
from wm.models.build import controller_of
from wm.models.controller import Controller
from wm.models.curiosity import CuriousAgent
from wm.models.memory import MDNRNN
from wm.models.vision import Vision
from wm.pool import Pool
from wm.runs import storage as places
from wm.runs.run import Manifest, Run, open_existing
from wm.runs.shards import ShardWriter, frame_column, rollout_schema, vector_column
from wm.seeds import derive, generator, training_episode
from wm.stages.sharding import make_shards, record, restore


def collect(config: Config, run: Run, pool: Pool) -> Manifest:
    """As many episodes as the config says; those that are there already are left as they are."""
    section, stage = config.collect, run.stage("collect")
    if section.curiosity and not section.agent:
        raise UserError("--collect.curiosity is an agent's, for it needs an M to surprise: say --collect.agent URI")
    driver = Driver.of(section.agent) if section.agent else None
    if driver and section.curiosity and driver.nll is None:
        raise UserError(f"the agent in {section.agent} has no M to surprise: leave --collect.curiosity out")
    work = CollectWork(config, run.uri, stage.folder, driver)
    done = stage.complete(section.episodes)
    if done is not None:
        restore(done, run, stage, work, pool)
        return done
    stage.begin()
    records = make_shards(run, stage, work, pool, section.episodes // section.unit_episodes)
    scores = [episode["score"] for record in records for episode in record["episodes"]]
    return stage.commit(
        section.episodes,
        inputs={"earlier": driver.rollouts, "evolve": driver.digest} if driver else {},
        content={"shards": records} | ({"earlier": driver.rollouts} if driver else {}),
        metrics={
            "frames": sum(sum(record["lengths"]) for record in records),
            "bytes": sum(record["bytes"] for record in records),
            "score": float(np.mean(scores)),
            "score_std": float(np.std(scores)),
        },
    )


@dataclass(frozen=True)
class Driver:
    """The agent of a run, and the rollouts that it learned from."""

    vision: Vision
    memory: MDNRNN | None
    controller: Controller
    theta: np.ndarray  # (N,)
    latent: Literal["mu", "z"]
    nll: float | None  # M's, held out, a dimension
    digest: str  # of the evolution that made it
    rollouts: str  # digest of its run's collect

    @staticmethod
    def of(uri: str) -> "Driver":
        run = open_existing(uri)
        config = run.config
        stage, inputs, vision, memory = parts(config, run)
        made, rollouts = stage.manifest(), run.need("collect", config.collect.episodes, "collect")
        if made is None:
            raise UserError(f"no complete evolve in {uri}, so nobody to drive: run `python -m jobs.evolve --run {uri}`")
        nll = None
        if memory is not None:
            nll = run.need("memory", config.memory.steps, "train_memory", of=inputs["vision"]).metrics["held_out_nll"]
        return Driver(
            vision.encoder_only(),
            memory,
            controller_of(config),
            load_theta(made),
            config.controller.latent,
            nll,
            made.digest,
            rollouts.digest,
        )

    def agent(self, config: Config, episodes: range, game: Game) -> Agent:
        """It drives these episodes, each with its own share of noise: some nearly as it can, some badly."""
        section = config.collect
        rngs = [generator(config.seed, "explore", episode) for episode in episodes]
        noise = [section.action_noise * rng.random() for rng in rngs]
        spread = [section.weight_noise * rng.random() * rng.standard_normal(self.theta.size) for rng in rngs]
        kind: Callable[..., Agent] = Agent
        if section.curiosity:
            assert self.nll is not None, "no M to surprise"
            kind = partial(CuriousAgent, weight=section.curiosity, usual=self.nll)
        return kind(
            self.vision,
            self.memory,
            self.controller,
            self.theta + np.stack(spread),
            owner=range(len(episodes)),
            squash=game.squash,
            latent=self.latent,
            seed=derive(config.seed, "collect", "noise", episodes.start),
            noise=noise,
        )


@dataclass(frozen=True)
class CollectWork:
    """Play one unit's episodes side by side and write them as one shard."""

    config: Config
    uri: str
    folder: str
    driver: Driver | None = None

    @property
    def threads(self) -> int:
        return self.config.threads

    def build(self) -> Callable[[int], dict[str, Any]]:
        game, storage, section = load(self.config.game), places.at(self.uri), self.config.collect
        fleet = EnvironmentCache(game.make)

        def do(unit: int) -> dict[str, Any]:
            first = unit * section.unit_episodes
            numbers = range(first, first + section.unit_episodes)
            seeds = tracks(self.config, numbers, self.driver)
            episodes = [Recording(section.steps, game.actions) for _ in seeds]
            policy = self.driver.agent(self.config, numbers, game) if self.driver else script(self.config, numbers)

            def remember(episode: int, *step: Any) -> None:
                if isinstance(policy, CuriousAgent):
                    episodes[episode].add_reward(policy.bonus[episode])
                episodes[episode].add(*step)

            games = fleet.of(len(seeds))
            played = play(games, seeds, policy, section.steps, record=remember, patience=section.patience)
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
            storage.put(key, data)  # the same bytes, should it be there already
            lengths = [episode.steps for episode in played]
            return record(key, data, lengths, episodes=[asdict(episode) for episode in played])

        return do


def tracks(config: Config, episodes: range, driver: Driver | None = None) -> list[int]:
    """The game's seeds; each agent drives tracks of its own."""
    drivers = [driver.digest] if driver else []
    return [training_episode(config.seed, "collect", *drivers, episode) for episode in episodes]


def script(config: Config, episodes: range) -> ScriptedPolicy:
    """Random actions, fixed beforehand: a pure function of the run's seed and the episodes' numbers. (E, T, A)"""
    game, section = load(config.game), config.collect
    scripts = [
        game.explore(section.policy, section.steps, generator(config.seed, "explore", episode)) for episode in episodes
    ]
    return ScriptedPolicy(np.stack(scripts))


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

    def add_reward(self, more: float) -> None:
        """To the last step, if there was one: what it was worth beside the game's reward shows a step later."""
        if self.length:
            self.rewards[self.length - 1] += more

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
