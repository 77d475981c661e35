"""The rates of this machine from a measurement of seconds, to say how long a run will take here."""

from jobs.benchmarks.agent import models_of_the_paper
from jobs.benchmarks.games import driver
from jobs.benchmarks.measure import one_core, rate
from jobs.benchmarks.training import rollouts, updates
from wm.envs import load
from wm.evolution.evaluation import EvaluateWork, GameUnit
from wm.experiments.plan import Rates, scaled
from wm.pool import set_threads
from wm.training.vision import VisionLearner

SECONDS = 2.0  # of each measurement


def quick_rates() -> Rates:
    """Measures V's training, the agent and the unmodified game; other rates follow from the first two."""
    game = load("car-racing")
    with one_core():
        models, thetas = models_of_the_paper()
        play = EvaluateWork(game, models, threads=1).build()
        unit = GameUnit("measurement", thetas, tuple(range(32)), tuple(range(32)), steps=30, patience=0, noise=1)
        agent = rate(lambda: sum(episode.steps for episode in play(unit)), SECONDS)
        exact = rate(driver(game.make(exact=True), 20), SECONDS)
    with rollouts(steps=100) as (config, data, _):
        set_threads(config.vision.threads)
        learner = VisionLearner(config.vision, game, config.seed, data, "cpu")
        vision = rate(updates(learner, config.vision.batch), SECONDS)
    return scaled(vision, agent, exact)
