"""The paper's Doom: its sizes to the last parameter, its dream, and what a wrong value is told."""

from dataclasses import replace

import numpy as np
import pytest

from wm.config.fields import of_kind
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.dream.rules import rules_of
from wm.errors import UserError
from wm.evolution.units import validation_units
from wm.models.build import controller_of, new_memory
from wm.models.vision import VAE
from wm.seeds import VALIDATION

DOOM = PRESETS["doom"]


def evolving(config: Config, **fields: object) -> Config:
    return replace(config, evolve=replace(config.evolve, **fields))


def test_v_m_and_c_have_as_many_parameters_as_the_paper_s() -> None:
    memory = new_memory(of_kind(DOOM, "bits"), DOOM.vision.z)
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (VAE(DOOM.vision.z), memory)]
    assert [*sizes, controller_of(DOOM).size] == [4_446_915, 1_678_785, 1_088]
    assert memory.inputs == 66  # z, a and the previous done


@pytest.mark.parametrize("name", ["doom", "doom-small", "doom-tiny"])
def test_c_learns_in_the_dream_alone(name: str) -> None:
    config = PRESETS[name]
    rules = rules_of(config)
    assert (config.game, config.evolve.where, config.evolve.patience) == ("doom", "dream", 0)
    tau = 1.0 if name == "doom-small" else 1.15
    assert (rules.taus, rules.done, rules.reward) == ((tau, tau), "threshold", "survival")
    assert (config.vision.z, config.controller.inputs, config.controller.bias) == (64, "zhc", False)
    if name != "doom-tiny":
        assert config.collect.steps == 2100
    if name == "doom":
        assert (rules.steps, config.evolve.dream_starts, config.memory.sequence) == (2100, "first", 500)


def test_validation_plays_the_real_game_in_units_of_its_own() -> None:
    config = PRESETS["doom-small"]
    units = list(validation_units(config, np.zeros(2), "validation"))
    assert {len(unit.seeds) for unit in units} == {config.score.unit_episodes}
    assert {unit.steps for unit in units} == {2100}
    assert [seed for unit in units for seed in unit.seeds] == list(range(VALIDATION, VALIDATION + 64))


def test_a_range_of_temperatures() -> None:
    assert rules_of(evolving(DOOM, tau_high=1.3)).taus == (1.15, 1.3)
    with pytest.raises(UserError, match=r"--evolve.tau-high 1.0 is below --evolve.tau 1.15: leave it out, or raise it"):
        evolving(DOOM, tau_high=1.0).check()


def test_only_numbers_of_several_sizes_are_scaled() -> None:
    eyes = replace(PRESETS["doom-small"], controller=replace(DOOM.controller, inputs="z"))
    with pytest.raises(UserError, match=r"leave --evolve.scaled out, or let C see more by --controller.inputs zh"):
        eyes.check()
    evolving(eyes, scaled=False).check()


def test_a_dream_that_ends_needs_an_m_that_knows_the_end() -> None:
    without = replace(DOOM, memory=replace(DOOM.memory, done=False))
    with pytest.raises(UserError, match=r"--evolve.dream-done threshold needs an M that predicts the end"):
        without.check()
    evolving(without, dream_done="never").check()
    with pytest.raises(UserError, match=r"--evolve.dream-dropout 1 is no share"):
        evolving(DOOM, dream_dropout=1).check()
