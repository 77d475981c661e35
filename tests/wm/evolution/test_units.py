"""The episodes of a generation and of a validation."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from wm.config.presets import PRESETS
from wm.config.schema import Evolve
from wm.envs import load
from wm.errors import UserError
from wm.evolution.evaluation import GameUnit
from wm.evolution.units import dream_units, game_units, tracks_of, validation_units
from wm.seeds import TRAINING, VALIDATION

GAME = load("car-racing")
SECTION = PRESETS["tiny"].evolve


def units_of(section: Evolve, generation: int, thetas: np.ndarray) -> Iterator[GameUnit]:
    return game_units(section, GAME, 1, generation, thetas, tracks_of(section, GAME, 1, generation))


def test_all_candidates_of_a_generation_play_the_same_new_tracks() -> None:
    section = replace(SECTION, population=5, episodes=3, unit_episodes=4)
    thetas = np.arange(5)[:, None].repeat(2, axis=1).astype(float)
    played: dict[int, list[int]] = {}
    for unit in units_of(section, 7, thetas):
        assert len(unit.seeds) == len(unit.owner) <= 4
        assert unit.steps == GAME.max_steps
        for owner, seed in zip(unit.owner, unit.seeds, strict=True):
            played.setdefault(int(unit.thetas[owner][0]), []).append(seed)
    assert sorted(played) == [0, 1, 2, 3, 4]
    assert all(seeds == played[0] for seeds in played.values())
    assert len(set(played[0])) == 3
    assert min(played[0]) >= TRAINING
    following = {seed for unit in units_of(section, 8, thetas) for seed in unit.seeds}
    assert not following & set(played[0])


def test_validation_plays_whole_episodes_from_its_own_range_of_seeds() -> None:
    assert {unit.patience for unit in units_of(SECTION, 0, np.zeros((4, 2)))} == {20}
    units = list(validation_units(SECTION, GAME, np.zeros(2), SECTION.unit_episodes, "validation"))
    assert [seed for unit in units for seed in unit.seeds] == [VALIDATION, VALIDATION + 1]
    assert {(unit.patience, unit.steps) for unit in units} == {(0, 1000)}


def test_validation_is_cut_into_units() -> None:
    section = replace(SECTION, validation_episodes=5)
    units = list(validation_units(section, GAME, np.zeros(2), 2, "validation"))
    assert [(unit.first, len(unit.seeds)) for unit in units] == [(0, 2), (2, 2), (4, 1)]


def test_all_candidates_dream_the_same_dreams_in_units_of_about_the_given_size() -> None:
    section = replace(SECTION, episodes=3, unit_episodes=7)
    units = list(dream_units(section, 1, 4, np.arange(5)[:, None].astype(float)))
    assert [(unit.first, unit.thetas[:, 0].tolist()) for unit in units] == [(0, [0, 1]), (2, [2, 3]), (4, [4])]
    assert {unit.episodes for unit in units} == {3}
    assert len({unit.seed for unit in units}) == 1
    assert next(dream_units(section, 1, 5, np.zeros((5, 1)))).seed != units[0].seed


def test_replayed_tracks_come_first() -> None:
    fresh = tracks_of(SECTION, GAME, 1, 3)
    assert tracks_of(SECTION, GAME, 1, 3, replayed=[11]) == [11, *fresh[: SECTION.episodes - 1]]


def test_hard_tracks_have_a_sharp_bend() -> None:
    section = replace(SECTION, episodes=4, population=4, hardness=0.26)
    easy, hard, again = (tracks_of(one, GAME, 1, 3) for one in (replace(section, hardness=0.0), section, section))
    assert hard == again
    assert min(map(GAME.hardness, hard)) >= 0.26 > min(map(GAME.hardness, easy))
    env = GAME.make()
    for seed in hard[:2]:  # the direction from tile to tile, from the track's own points
        env.reset(seed=seed)
        points = np.array(env.unwrapped.track)[:, 2:]
        direction = np.unwrap(np.arctan2(*np.roll(points, -1, axis=0).T - points.T))
        assert np.abs(direction[8:] - direction[:-8]).max() / 8 == pytest.approx(GAME.hardness(seed), abs=0.05)
    with pytest.raises(UserError, match=r"have hardness 3\.0 or more: lower --evolve.hardness"):
        tracks_of(replace(section, hardness=3.0), GAME, 1, 3)
