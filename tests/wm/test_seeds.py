"""Seeds are pure functions of their purpose; training, validation and test never share one."""

import subprocess
import sys

import numpy as np
import pytest

from wm import seeds
from wm.seeds import derive, generator, training_episode, validation_episode


def test_a_seed_is_the_same_in_every_process() -> None:
    code = "from wm.seeds import derive; print(derive(1, 'collect', 7))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == derive(1, "collect", 7)


def test_every_part_changes_the_seed() -> None:
    seeds = {derive(run, stage, unit) for run in range(10) for stage in ("a", "b") for unit in range(50)}
    assert len(seeds) == 1000
    assert derive(1, 23) != derive(12, 3)
    assert all(0 < seed < 2**63 for seed in seeds)


def test_generators_are_a_function_of_their_purpose() -> None:
    assert np.array_equal(generator(1, "x").random(4), generator(1, "x").random(4))
    assert not np.array_equal(generator(1, "x").random(4), generator(2, "x").random(4))


def test_ranges_are_disjoint_and_valid_in_gymnasium() -> None:
    last = 2**29 - 1
    test = (seeds.test_episode(0), seeds.test_episode(last))
    validation = (validation_episode(0), validation_episode(last))
    training = [training_episode(1, "evolve", number) for number in range(20_000)]
    assert test[1] < validation[0]
    assert validation[1] < min(training)
    assert max(training) < 2**31


def test_an_index_outside_its_range_is_an_error() -> None:
    for episode in (seeds.test_episode, validation_episode):
        for index in (-1, 2**29):
            with pytest.raises(AssertionError):
                episode(index)
