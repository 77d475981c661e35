"""The Doom presets: the paper's sizes to the last parameter, the dream's rules, and errors for wrong values."""

from dataclasses import replace

import numpy as np
import pytest

from wm.config.fields import of_kind
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.dream.rules import rules_of
from wm.envs import load
from wm.errors import UserError
from wm.evolution.units import validation_units
from wm.models.build import controller_of, new_memory
from wm.models.vision import VAE
from wm.seeds import VALIDATION

DOOM = PRESETS["doom"]


def with_evolve(config: Config, **fields: object) -> Config:
    return replace(config, evolve=replace(config.evolve, **fields))


def test_v_m_and_c_have_as_many_parameters_as_in_the_paper() -> None:
    memory = new_memory(of_kind(DOOM, "bits"), DOOM.vision.z)
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (VAE(DOOM.vision.z), memory)]
    assert [*sizes, controller_of(DOOM).size] == [4_446_915, 1_678_785, 1_088]
    assert memory.inputs == 66  # z, a and the previous done


@pytest.mark.parametrize("name", ["doom", "doom-small", "doom-tiny"])
def test_doom_presets_evolve_c_in_the_dream(name: str) -> None:
    config = PRESETS[name]
    rules = rules_of(config, load(config.game))
    assert (config.game, config.evolve.where, config.evolve.patience) == ("doom", "dream", 0)
    tau = 1.0 if name == "doom-small" else 1.15
    assert (rules.tau, rules.done, rules.reward) == (tau, "threshold", "survival")
    assert (config.vision.z, config.controller.inputs, config.controller.bias) == (64, "zhc", False)
    if name != "doom-tiny":
        assert config.collect.steps == 2100
    if name == "doom":
        assert (rules.steps, config.evolve.dream_starts, config.memory.sequence) == (2100, "first", 500)


def test_validation_plays_the_real_game_in_units_of_the_given_size() -> None:
    config = PRESETS["doom-small"]
    units = list(validation_units(config.evolve, load("doom"), np.zeros(2), 4, "validation"))
    assert {len(unit.seeds) for unit in units} == {4}
    assert {unit.steps for unit in units} == {2100}
    assert [seed for unit in units for seed in unit.seeds] == list(range(VALIDATION, VALIDATION + 64))


def test_scaled_needs_inputs_of_several_sizes() -> None:
    z_only = replace(PRESETS["doom-small"], controller=replace(DOOM.controller, inputs="z"))
    with pytest.raises(UserError, match=r"--evolve.scaled needs inputs.*remove it, or use --controller.inputs zh"):
        z_only.check()
    with_evolve(z_only, scaled=False).check()


def test_a_dream_that_ends_needs_an_m_that_predicts_the_end() -> None:
    without = replace(DOOM, memory=replace(DOOM.memory, done=False))
    with pytest.raises(UserError, match=r"--evolve.dream-done threshold needs an M that predicts the end"):
        without.check()
    with_evolve(without, dream_done="never").check()
