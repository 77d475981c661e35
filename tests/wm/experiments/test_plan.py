"""Plans: more machines take less time, more work takes more, and measured rates replace the defaults."""

from dataclasses import replace

import pytest

from wm.config.presets import PRESETS
from wm.experiments.plan import Rates, estimate, estimate_rounds, rates_of, side_by_side

PAPER, SMALL = PRESETS["car-racing"], PRESETS["car-racing-small"]


def seconds(config=SMALL, cpus=2, gpus=0, rates=Rates()) -> dict[str, float]:  # noqa: B008
    return {stage.stage: stage.seconds for stage in estimate(config, cpus, gpus, rates)}


def test_more_workers_take_less_time_until_units_run_out() -> None:
    few, many, most = (seconds(PAPER, cpus)["evolve"] for cpus in (16, 256, 4096))
    assert few > 10 * many
    assert many == pytest.approx(most, rel=0.05)  # 1,024 episodes in units of 4


def test_a_gpu_speeds_up_training_only() -> None:
    without, with_one = seconds(PAPER, 64), seconds(PAPER, 64, 1)
    assert with_one["vision"] < without["vision"] / 10
    assert with_one["evolve"] == without["evolve"]


def test_dreams_on_gpus_are_shared_among_them() -> None:
    evolve = replace(PAPER.evolve, where="dream", device="cuda", unit_episodes=128, validate_every=9_999)  # 8 units
    dream = replace(PAPER, evolve=evolve)
    without, one, four = (estimate(dream, 16, gpus, Rates())[-2] for gpus in (0, 1, 4))
    assert without.gpus == 0
    assert (one.gpus, four.gpus) == (1, 4)
    assert without.seconds > one.seconds > 2 * four.seconds


def test_runs_side_by_side_wait_for_gpus_only_where_there_are_too_few() -> None:
    one = {stage.stage: stage for stage in estimate(PAPER, 16, 1, Rates())}
    for gpus, waves in ((1, 4), (2, 2), (3, 2), (4, 1), (8, 1)):
        together = {stage.stage: stage for stage in side_by_side(list(one.values()), 4, gpus)}
        assert together["vision"].seconds == waves * one["vision"].seconds
        assert together["vision"].gpus == min(gpus, 4)
        assert together["collect"].seconds == one["collect"].seconds
        assert together["collect"].cpus == 64


def test_the_figures_of_a_gpu_replace_what_is_assumed() -> None:
    figures = {"V, batch 128, float32, frames on the GPU": 9.0, "M of car-racing, float32": 2.0, "profile of V": None}
    rates = rates_of(figures)
    assert rates == replace(Rates(), vision_gpu=9.0, memory_gpu=2.0 * 100 * 999)


def test_the_stages_are_those_of_the_pipeline() -> None:
    assert list(seconds()) == ["collect", "vision", "latents", "memory", "evolve", "score"]
    without = replace(SMALL, controller=replace(SMALL.controller, inputs="z"))
    assert "memory" not in seconds(without)


def test_the_dream_is_faster_than_the_game() -> None:
    dream = replace(SMALL, evolve=replace(SMALL.evolve, where="dream"))
    assert seconds(dream)["evolve"] < seconds()["evolve"] / 5


def test_measured_rates_replace_the_defaults() -> None:
    rates = rates_of({"training V, 2 threads": 1.0, "something else": 5.0})
    assert rates == replace(Rates(), vision=1.0)
    assert seconds(rates=rates)["vision"] > 100 * seconds()["vision"]


def test_random_episodes_of_doom_are_short_and_its_rendering_slow() -> None:
    doom = PRESETS["doom-small"]
    stages = {stage.stage: stage for stage in estimate(doom, 2, 0, Rates())}
    assert stages["collect"].work == f"{285 * doom.collect.episodes:,} frames"
    assert stages["collect"].seconds > 2 * seconds(replace(doom, game="car-racing"))["collect"] * 285 / 1000
    assert stages["score"].seconds < 900


def test_later_rounds_encode_more_and_only_the_last_is_scored() -> None:
    """A new V encodes all rollouts again, a frozen V only the new ones."""
    dream = PRESETS["car-racing-dream"]
    first, *more = (
        {one.stage: one.seconds for one in row} for row in estimate_rounds(dream, 3, 2, 0, Rates()).values()
    )
    assert first["vision"] == seconds(dream)["vision"] > more[0]["vision"]
    assert first["latents"] < more[0]["latents"] < more[1]["latents"]
    assert ["score" in row for row in (first, *more)] == [False, False, True]
    overrides = dream.rounds.overrides | {"vision.frozen": True}
    frozen = replace(dream, rounds=replace(dream.rounds, overrides=overrides))
    _, second = ({one.stage: one.seconds for one in row} for row in estimate_rounds(frozen, 2, 2, 0, Rates()).values())
    assert "vision" not in second
    assert second["latents"] < more[0]["latents"]


def test_rounds_double_their_episodes_and_the_last_one_is_scored() -> None:
    config = PRESETS["car-racing-best"]
    table = estimate_rounds(config, 3, 2, 0, Rates())
    assert not any(one.stage == "score" for name in list(table)[:-1] for one in table[name])
    own = config.rounds.overrides
    episodes = own["evolve.generations"] * own["evolve.population"] * own["evolve.episodes"]
    works = [next(one.work for one in table[f"round {number}"] if one.stage == "evolve") for number in (1, 2)]
    assert works[0].startswith(f"{600 * episodes:,} steps in the real game")
    assert works[1].startswith(f"{2 * 600 * episodes:,} steps in the real game")
