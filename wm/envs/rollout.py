"""The paper's agent loop for a batch of environments that step together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np


class Policy(Protocol):
    """Chooses actions: a random script, or the agent of V, M and C."""

    def act(self, frames: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """Frames (B, 64, 64, 3) of the live episodes and their indices in the batch (B,) -> actions (B, A)."""


@dataclass(frozen=True)
class EpisodeResult:
    """The result of one episode."""

    seed: int
    steps: int
    score: float  # sum of the rewards
    terminated: bool  # whether the game ended it, rather than a limit


class ScriptedPolicy:
    """Actions drawn in advance, one script per episode."""

    def __init__(self, scripts: np.ndarray):
        self.scripts, self.step = scripts, 0  # (E, T, A)

    def act(self, frames: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        actions = self.scripts[episodes, self.step]  # (B, A)
        self.step += 1
        return actions


# Called for each step: episode, frame before the step, action, reward, terminated, truncated.
Recorder = Callable[[int, np.ndarray, np.ndarray, float, bool, bool], None]


def play(
    environments: Sequence[gymnasium.Env],
    seeds: Sequence[int],
    policy: Policy,
    steps: int,
    record: Recorder | None = None,
    patience: int = 0,
) -> list[EpisodeResult]:
    """Play one episode of at most `steps` steps in each environment.

    With `patience`, an episode ends after this many steps without reward. Scores are measured on whole episodes.
    """
    assert len(environments) == len(seeds), (len(environments), len(seeds))
    frames = np.stack([env.reset(seed=seed)[0] for env, seed in zip(environments, seeds, strict=True)])
    scores, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), int)
    rewarded = np.zeros(len(seeds), int)  # step of the last reward
    ended = np.zeros(len(seeds), bool)  # by the game
    live = np.arange(len(seeds))
    for step in range(1, steps + 1):
        actions = policy.act(frames[live], live)  # (B, A)
        remaining = []
        for episode, action in zip(live.tolist(), actions, strict=True):
            frame, gain, terminated, truncated, _ = environments[episode].step(action)
            reward, truncated = float(gain), truncated or step == steps
            if record is not None:
                record(episode, frames[episode], action, reward, terminated, truncated)
            frames[episode] = frame
            scores[episode] += reward
            lengths[episode], ended[episode] = step, terminated
            if reward > 0:
                rewarded[episode] = step
            stuck = patience and step - rewarded[episode] >= patience
            if not (terminated or truncated or stuck):
                remaining.append(episode)
        live = np.array(remaining, int)
        if not remaining:
            break
    return [
        EpisodeResult(seed, int(length), float(score), bool(end))
        for seed, length, score, end in zip(seeds, lengths, scores, ended, strict=True)
    ]


class EnvironmentCache:
    """Environments that are made once and reused, as many as a unit needs."""

    def __init__(self, make: Callable[[], Any]):
        self.make, self.environments = make, list[Any]()

    def of(self, count: int) -> list[Any]:
        while len(self.environments) < count:
            self.environments.append(self.make())
        return self.environments[:count]
