"""The agent loop of the paper, over a batch of environments that step together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np


class Policy(Protocol):
    """Whoever drives: a random script, or the agent of V, M and C."""

    def act(self, frames: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """Actions for the live episodes: frames (B, 64, 64, 3), their places in the batch (B,) -> (B, A)."""


@dataclass(frozen=True)
class EpisodeResult:
    """One episode in numbers."""

    seed: int
    steps: int
    score: float  # the sum of its rewards
    terminated: bool  # the game ended it; else a limit did


class ScriptedPolicy:
    """Actions fixed beforehand, one script an episode."""

    def __init__(self, scripts: np.ndarray):
        self.scripts, self.step = scripts, 0  # (E, T, A)

    def act(self, frames: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        actions = self.scripts[episodes, self.step]  # (B, A)
        self.step += 1
        return actions


# What a recorder is told of each step: episode, frame seen, action taken, reward, terminated, truncated.
Recorder = Callable[[int, np.ndarray, np.ndarray, float, bool, bool], None]


def play(
    environments: Sequence[gymnasium.Env],
    seeds: Sequence[int],
    policy: Policy,
    steps: int,
    record: Recorder | None = None,
    patience: int = 0,
) -> list[EpisodeResult]:
    """One episode in each environment, at most `steps` long.

    With `patience`, an episode that has earned nothing for so many steps is given up (for training
    alone: scores play whole episodes).
    """
    assert len(environments) == len(seeds), (len(environments), len(seeds))
    frames = np.stack([env.reset(seed=seed)[0] for env, seed in zip(environments, seeds, strict=True)])
    scores, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), int)
    earned = np.zeros(len(seeds), int)  # step of the last reward
    ended = np.zeros(len(seeds), bool)  # by the game
    live = np.arange(len(seeds))
    for step in range(1, steps + 1):
        actions = policy.act(frames[live], live)  # (B, A)
        going = []
        for episode, action in zip(live.tolist(), actions, strict=True):
            frame, gained, terminated, truncated, _ = environments[episode].step(action)
            reward, truncated = float(gained), truncated or step == steps
            if record is not None:
                record(episode, frames[episode], action, reward, terminated, truncated)
            frames[episode] = frame
            scores[episode] += reward
            lengths[episode], ended[episode] = step, terminated
            if reward > 0:
                earned[episode] = step
            hopeless = patience and step - earned[episode] >= patience
            if not (terminated or truncated or hopeless):
                going.append(episode)
        live = np.array(going, int)
        if not going:
            break
    return [
        EpisodeResult(seed, int(length), float(score), bool(end))
        for seed, length, score, end in zip(seeds, lengths, scores, ended, strict=True)
    ]


class EnvironmentCache:
    """Environments that are built once and reused, as many as a unit needs."""

    def __init__(self, make: Callable[[], Any]):
        self.make, self.environments = make, list[Any]()

    def of(self, count: int) -> list[Any]:
        while len(self.environments) < count:
            self.environments.append(self.make())
        return self.environments[:count]
