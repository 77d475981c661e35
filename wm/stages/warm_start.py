"""The search distribution that an evolution starts with: from scratch, or from another run's C."""

import logging

import numpy as np

from wm.agents.artifacts import load_models, load_theta, model_manifests
from wm.config.schema import Config
from wm.dream.starts import input_sizes
from wm.envs import Game
from wm.errors import UserError
from wm.evolution.cma_es import Evolution
from wm.evolution.components import inputs_while_driving, principal_components
from wm.evolution.refit import refitted
from wm.models.agent import Models
from wm.runs.datasets import rollouts_of
from wm.runs.run import Run, open_existing
from wm.seeds import derive

log = logging.getLogger(__name__)


def evolution_seed(config: Config) -> int:
    return config.seed + config.evolve.seed


def new_evolution(
    config: Config, size: int, sigma: float, mean: np.ndarray | None = None, axes: np.ndarray | None = None
) -> Evolution:
    section, seed = config.evolve, derive(evolution_seed(config), "evolve")
    return Evolution(size, section.population, sigma, section.covariance, seed, mean, axes)


def first_distribution(run: Run, game: Game, models: Models) -> tuple[Evolution, int]:
    """The distribution before the first generation, and the steps of the game that were played to compute it."""
    config, section, shape = run.config, run.config.evolve, models.controller
    mean, sigma, axes, steps = None, section.sigma0, None, 0
    if section.init:
        mean, sigma = _other_run(run, models)
    if section.scaled:
        assert models.memory is not None, "checked with the config"
        sizes = input_sizes(run.need("latents"), models.memory, config.seed)
        axes = shape.scale(sizes[: shape.features_size])
    elif section.components:
        assert mean is not None, "checked with the config"
        seen, steps = inputs_while_driving(game, models, mean, config.seed, section.patience)
        axes = shape.directions(*principal_components(seen, section.components))
    return new_evolution(config, shape.size, sigma, mean, axes), steps


def _other_run(run: Run, models: Models) -> tuple[np.ndarray, float]:
    """The mean and sigma of the run that `evolve.init` names, its C fitted to this run's models if asked for."""
    section, other = run.config.evolve, open_existing(run.config.evolve.init)
    theirs, ours = model_manifests(other), model_manifests(run)
    manifest = other.stage("evolve").manifest()
    if manifest is None:
        raise UserError(
            f"no completed evolve stage in {section.init} to start from: complete it, or remove --evolve.init"
        )
    mean, sigma = load_theta(manifest), section.init_sigma or manifest.metrics.get("sigma", 0.0)
    if not sigma:
        raise UserError(f"{section.init} has no sigma: add --evolve.init-sigma, such as 0.02")
    before = other.config.evolve
    same_scale = (before.scaled, before.components > 0) == (section.scaled, section.components > 0)
    if not same_scale and not section.init_sigma:
        raise UserError(f"the sigma of {section.init} has another scale: add --evolve.init-sigma, such as 0.02")
    same_models = {name: one.digest for name, one in theirs.items()} == {name: one.digest for name, one in ours.items()}
    if other.config.controller.one_pedal != run.config.controller.one_pedal:
        pedals = "one pedal" if other.config.controller.one_pedal else "two pedals"
        raise UserError(f"the C in {section.init} has {pedals}: use the same --controller.one-pedal here")
    if section.refit and not same_models:
        log.info("fitting the C of %s to this run's V and M", section.init)
        return refitted(mean, load_models(other)[0], models, rollouts_of(run.need("collect"))), sigma
    if mean.size != models.controller.size:
        raise UserError(
            f"the C in {section.init} has {mean.size} parameters, this one {models.controller.size}: start from a run"
            " of the same sizes"
        )
    return mean, sigma
