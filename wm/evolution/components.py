"""Principal components of C's inputs while it drives: the few directions in which its actions change most."""

import numpy as np

from wm.envs import Game
from wm.envs.rollout import play
from wm.errors import UserError
from wm.models.agent import Models
from wm.seeds import derive, training_episode

EPISODES = 8  # takes seconds; some thousand frames are enough for dozens of components


def inputs_while_driving(
    game: Game, models: Models, theta: np.ndarray, seed: int, patience: int
) -> tuple[np.ndarray, int]:
    """The inputs of this C in a few training episodes (T, F), and the number of steps."""
    seeds = [training_episode(seed, "components", episode) for episode in range(EPISODES)]
    agent = models.agent(theta[None], (0,) * EPISODES, game.squash, seed=derive(seed, "components", "noise"))
    seen, environments = list[np.ndarray](), [game.make() for _ in seeds]
    played = play(
        environments,
        seeds,
        agent,
        game.max_steps,
        record=lambda episode, *_: seen.append(agent.features[episode].numpy().astype(np.float64)),
        patience=patience,
    )
    for environment in environments:
        environment.close()
    return np.stack(seen), sum(episode.steps for episode in played)


def principal_components(seen: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the inputs (T, F), and their principal components (K, F), each divided by its deviation."""
    mean = seen.mean(axis=0)
    _, deviations, components = np.linalg.svd((seen - mean) / np.sqrt(len(seen)), full_matrices=False)
    available = int((deviations > 1e-6).sum())
    if count > available:
        raise UserError(f"--evolve.components must be {available} or less for the inputs of this C, got {count}")
    return mean, components[:count] / deviations[:count, None]
