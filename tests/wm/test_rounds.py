"""Rounds: each builds on the one before, any of them may be cut off, and more may follow."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from processes import Job

from wm.config import PRESETS, Rounds
from wm.mistakes import Mistake
from wm.pool import LocalPool
from wm.rounds import iterate
from wm.run import Run, must_open, start_run
from wm.trained import of_run

TINY = PRESETS["tiny"]
TWO = replace(TINY, rounds=Rounds(count=2, episodes=2, vision_steps=3, memory_steps=3, generations=2))
WORDS = ("--rounds.episodes", 2, "--rounds.vision-steps", 3, "--rounds.memory-steps", 3, "--rounds.generations", 2)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = start_run(str(tmp_path_factory.mktemp("rounds") / "two"), "tiny", TWO)
    iterate(TWO, run, LocalPool())
    return run


def table(run: Run) -> list[dict]:
    return json.loads(run.place.get("rounds.json"))


def test_each_round_builds_on_the_one_before(two: Run) -> None:
    first, second = table(two)
    later = must_open(f"{two.uri}/round-001")
    assert later.config.collect.agent == later.config.vision.init == later.config.evolve.init == f"{two.uri}/round-000"
    assert second["env_steps"] > first["env_steps"] + 2 * 40
    assert list(first["nll"]) == ["round-000"]
    made = later.stage("vision").manifest()
    latents = later.stage("latents", of=made.digest).manifest()
    assert latents.metrics["frames"] > later.stage("collect").manifest().metrics["frames"]
    assert len(list(Path(two.uri).glob("round-*/score/*/manifest-*.json"))) == 1  # test tracks judge one agent alone


def test_more_rounds_may_follow(two: Run) -> None:
    more = replace(TWO, rounds=replace(TWO.rounds, count=3))
    before = table(two)
    iterate(more, start_run(two.uri, "tiny", more), LocalPool())
    assert table(two)[:2] == before
    assert len(table(two)) == 3


def test_a_frozen_v_stays_as_it_is(two: Run, tmp_path: Path) -> None:
    still = replace(TWO, rounds=replace(TWO.rounds, vision_steps=0))
    run = start_run(str(tmp_path), "tiny", still)
    iterate(still, run, LocalPool())
    digests = {must_open(f"{run.uri}/round-00{number}").stage("vision").manifest().digest for number in (0, 1)}
    assert len(digests) == 1
    assert of_run(must_open(f"{run.uri}/round-001")).memory is not None


@pytest.mark.parametrize("limit", [{"target": -500.0}, {"env_steps": 1}])
def test_enough_is_enough(limit: dict, tmp_path: Path) -> None:
    config = replace(TWO, rounds=replace(TWO.rounds, **limit))
    run = start_run(str(tmp_path), "tiny", config)
    iterate(config, run, LocalPool())
    assert len(table(run)) == 1


def test_a_driver_killed_in_any_round_leaves_no_trace(two: Run, job: Callable[..., Job], tmp_path: Path) -> None:
    words = ("tiny", "--run", tmp_path / "run", "--rounds", 2, *WORDS, "--local")
    for reached in ("round-000/vision/checkpoints", "round-001/collect", "round-001/evolve"):
        folder = tmp_path / "run" / reached
        job("iterate", *words).kill_when(lambda folder=folder: any(folder.rglob("*")))
    assert job("iterate", *words).wait() == 0
    assert table(must_open(str(tmp_path / "run"))) == table(two)[:2]


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(Mistake, match=r"rounds\.count"):
        replace(TINY, rounds=Rounds(count=0)).check()
    with pytest.raises(Mistake, match="vision-steps"):
        replace(TINY, rounds=Rounds(vision_steps=-1)).check()
    with pytest.raises(Mistake, match=r"vision\.init"):
        replace(TINY, vision=replace(TINY.vision, frozen=True)).check()
