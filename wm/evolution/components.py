"""The few directions in which what C does changes most: principal components of what it sees while it drives."""

import numpy as np

from wm.config.schema import Config
from wm.envs import load
from wm.envs.rollout import play
from wm.errors import UserError
from wm.models.agent import Agent
from wm.models.build import controller_of
from wm.models.memory import MDNRNN
from wm.models.vision import Vision
from wm.seeds import derive, training_episode

EPISODES = 8  # seconds; an agent's thousands of frames have some dozens of components to tell


def seen_by(config: Config, vision: Vision, memory: MDNRNN | None, theta: np.ndarray) -> tuple[np.ndarray, int]:
    """All that this C sees in a few training episodes (T, F), and how many steps these are."""
    section, game = config.evolve, load(config.game)
    seeds = [training_episode(config.seed, "components", episode) for episode in range(EPISODES)]
    noise = derive(config.seed, "components", "noise")
    latent = config.controller.latent
    agent = Agent(
        vision, memory, controller_of(config), theta[None], (0,) * EPISODES, game.squash, latent=latent, seed=noise
    )
    seen, games = list[np.ndarray](), [game.make() for _ in seeds]
    played = play(
        games,
        seeds,
        agent,
        section.steps or game.max_steps,
        record=lambda episode, *_: seen.append(agent.features[episode].numpy().astype(np.float64)),
        patience=section.patience,
    )
    for env in games:
        env.close()
    return np.stack(seen), sum(episode.steps for episode in played)


def components_of(seen: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The average of what was seen (T, F), and its principal components (K, F), each divided by its deviation."""
    mean = seen.mean(axis=0)
    _, deviations, components = np.linalg.svd((seen - mean) / np.sqrt(len(seen)), full_matrices=False)
    if count > (deviations > 1e-6).sum():
        raise UserError(f"what C sees has no {count} principal components: say fewer --evolve.components")
    return mean, components[:count] / deviations[:count, None]
