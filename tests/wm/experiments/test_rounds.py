"""Rounds: each builds on the one before, any of them may be cut off, and more may follow."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import Job

from wm.agents.trained import of_run
from wm.config.presets import PRESETS
from wm.config.schema import Config, Polish, Rounds
from wm.errors import UserError
from wm.experiments.rounds import best_of, is_complete, iterate, open_round, polish_config, round_config
from wm.pool import LocalPool, Progress
from wm.report import score_section as results
from wm.report.run_page import run_report
from wm.runs.checkpoints import unpack
from wm.runs.run import Run, open_existing, start_run
from wm.stages.latents import EncodeWork
from wm.stages.warm_start import first_distribution

TINY = PRESETS["tiny"]
TWO = replace(
    TINY,
    memory=replace(TINY.memory, held_out=5),  # one of each round's
    score=replace(TINY.score, episodes=1),
    rounds=Rounds(count=2, episodes=2, vision_steps=3, memory_steps=3, generations=2, refit=True),
)
WORDS = (
    "--memory.held-out 5 --score.episodes 1 --rounds.episodes 2"
    " --rounds.vision-steps 3 --rounds.memory-steps 3 --rounds.generations 2"
)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = start_run(str(tmp_path_factory.mktemp("rounds") / "two"), "tiny", TWO)
    iterate(run, LocalPool())
    return run


def begun_like(two: Run, folder: Path, config: Config) -> Run:
    """A run with another config that has the same first round, complete but for its score."""
    shutil.copytree(Path(two.uri, "round-000"), folder / "round-000", ignore=shutil.ignore_patterns("score"))
    return start_run(str(folder), "tiny", config)


def table(run: Run) -> list[dict]:
    return json.loads(run.storage.get("rounds.json"))


def test_each_round_builds_on_the_one_before(two: Run) -> None:
    first, second = table(two)
    later = open_existing(f"{two.uri}/round-001")
    assert later.config.collect.agent == later.config.vision.init == later.config.evolve.init == f"{two.uri}/round-000"
    assert second["env_steps"] > first["env_steps"] + 2 * 40
    assert list(first["nll"]) == ["round-000"]
    assert list(second["nll"]) == ["round-000", "round-001"]
    assert first["nll_before"] == first["nll"]["round-000"]
    assert second["nll_before"] not in (second["nll"]["round-001"], first["nll_before"])
    made = later.stage("vision").manifest()
    latents = later.stage("latents", of=made.digest).manifest()
    assert latents.metrics["frames"] > later.stage("collect").manifest().metrics["frames"]
    assert len(list(Path(two.uri).glob("round-*/score/*/manifest-*.json"))) == 1  # test tracks judge one agent alone


def test_each_round_says_how_dreams_and_coverage_are(two: Run) -> None:
    first, second = table(two)
    for row in (first, second):
        assert np.isfinite([row["dream"]["mean"], row["dream"]["se"]]).all()
        assert {"cells", "cells_entropy", "tiles", "track_share", "speed", "speed_entropy"} <= set(row["coverage"])
    assert first["coverage"]["frames"] == 4 * 5  # every eighth of the frames that this round collected itself


def test_a_report_and_the_status_show_rounds(
    two: Run, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(results, "FILM_STEPS", 10)
    run = tmp_path / "two"
    shutil.copytree(two.uri, run)  # its rounds still name the first one's place
    shown = run_report(open_existing(str(run)))
    for part in ("Round by round", "What M foresees", "What was visited", "jobs.iterate tiny", "In the game"):
        assert part in shown
    assert "under way" not in shown
    whole = job("status", "--run", run)
    assert whole.wait() == 0, whole.stderr
    assert [row["state"] for row in whole.summary["rounds"]] == ["complete"] * 2
    assert whole.summary["next"] is None
    (run / "round-001" / "round.json").unlink()
    for manifest in (run / "round-001" / "evolve").rglob("manifest-*"):
        manifest.unlink()
    assert "Of round-001 4 of 5 stages are complete" in run_report(open_existing(str(run)))
    half = job("status", "--run", run)
    assert half.wait() == 0, half.stderr
    assert half.summary["rounds"][1]["state"].startswith("evolve: ")
    assert half.summary["next"] == f"python -m jobs.iterate --run {run}"


def test_a_round_without_room_is_refused_before_it_begins(two: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    part = open_round(TWO, two, 1)
    monkeypatch.setattr(part.storage, "free", lambda: 1000)
    with pytest.raises(UserError, match=r"latents needs about .* make room"):
        part.tell(Progress("latents", 0, 2, "shards"))


def test_the_first_round_is_the_same_with_curiosity_and_the_next_one_is_not(two: Run) -> None:
    curious = replace(TWO, collect=replace(TWO.collect, curiosity=0.5))
    first, second = (round_config(curious, two.uri, number) for number in (0, 1))
    assert first == round_config(TWO, two.uri, 0)
    assert second.collect.curiosity == 0.5


def test_c_looks_as_far_around_as_is_said_once_a_round_begins(two: Run) -> None:
    wide = replace(TWO, rounds=replace(TWO.rounds, sigma=0.07))
    first, second = (round_config(wide, two.uri, number).check().evolve for number in (0, 1))
    assert (first.init_sigma, second.init_sigma) == (0, 0.07)
    assert round_config(TWO, two.uri, 1).evolve.init_sigma == 0


def test_each_round_learns_of_the_landscape_as_is_said_for_it() -> None:
    """A diagonal covariance finds a C that drives, a full one leads on from there; who begins anew each time finds."""
    best = PRESETS["car-racing-best"]
    best = replace(best, evolve=replace(best.evolve, covariance="diagonal"))
    first, second = (round_config(best, "runs/it", number) for number in (0, 1))
    polished = polish_config(best, first, "runs/it/round-000")
    assert [one.evolve.covariance for one in (first, second, polished)] == ["diagonal", "full", "full"]
    fresh = replace(best, rounds=replace(best.rounds, sigma=0.0, fresh=True)).check()
    assert round_config(fresh, "runs/it", 1).evolve.covariance == "diagonal"


def test_c_is_fitted_to_the_next_round_s_v_and_m(two: Run) -> None:
    first, second = (open_existing(f"{two.uri}/round-00{number}") for number in (0, 1))
    assert not first.config.evolve.refit
    assert second.config.evolve.refit
    before, now = of_run(first), of_run(second)
    assert before.memory is not None
    fitted = first_distribution(second.config, second, now.vision, now.memory)[0].mean
    assert 0 < np.abs(fitted - before.theta).max() < 1


def test_the_best_round_s_c_is_polished_with_v_and_m_as_they_are(
    two: Run, job: Callable[..., Job], tmp_path: Path
) -> None:
    polish = Polish(generations=2, components=3, population=5, episodes=1, cut=50.0, hardness=0.1)
    config = replace(TWO, polish=polish)
    assert [round_config(config, two.uri, number) for number in (0, 1)] == [
        round_config(TWO, two.uri, number) for number in (0, 1)
    ]
    run, folder = begun_like(two, tmp_path, config), tmp_path
    assert not is_complete(run)
    iterate(run, LocalPool())
    *rounds, last = table(run)
    best = best_of(rounds)
    part = open_existing(f"{folder}/round-00{best}-polished")
    assert (last["round"], last["polished"], [row["polished"] for row in rounds]) == (best, True, [False] * 2)
    told = part.config.evolve
    assert (told.components, told.cut, told.hardness, told.population, told.episodes) == (3, 50.0, 0.1, 5, 1)
    assert told.init == part.base.uri == f"{folder}/round-00{best}"
    assert not (folder / f"round-00{best}-polished" / "vision").exists()  # it took over what there was
    assert is_complete(run)
    assert last["env_steps"] > rounds[best]["env_steps"]
    assert f"{best}, polished" in run_report(run)
    before = last
    further = replace(config, polish=replace(polish, generations=3))
    assert not is_complete(start_run(run.uri, "tiny", further))
    iterate(start_run(run.uri, "tiny", further), LocalPool())
    assert table(run)[:2] == rounds
    assert table(run)[2]["env_steps"] > before["env_steps"]
    shown = job("status", "--run", folder)
    assert shown.wait() == 0, shown.stderr
    assert [row["state"] for row in shown.summary["rounds"]] == ["complete"] * 3


def test_what_can_t_be_polished_is_refused_before_the_first_round(two: Run, tmp_path: Path) -> None:
    config = replace(TWO, evolve=replace(TWO.evolve, scaled=True), polish=Polish(generations=2))
    with pytest.raises(UserError, match=r"evolve\.scaled"):
        iterate(begun_like(two, tmp_path, config), LocalPool())


def test_m_goes_on_at_the_rate_that_is_said(two: Run) -> None:
    usual, slow = TWO.memory.learning_rate, replace(TWO, rounds=replace(TWO.rounds, memory_learning_rate=0.0002))
    assert [round_config(slow, two.uri, number).memory.learning_rate for number in (0, 1)] == [usual, 0.0002]
    assert round_config(TWO, two.uri, 1).memory.learning_rate == usual


def test_more_rounds_may_follow_and_the_last_one_be_taken_further(two: Run) -> None:
    before = table(two)
    more = replace(TWO, rounds=replace(TWO.rounds, count=3))
    iterate(start_run(two.uri, "tiny", more), LocalPool())
    three = table(two)
    assert three[:2] == before
    further = replace(more, rounds=replace(more.rounds, generations=3))
    iterate(start_run(two.uri, "tiny", further), LocalPool())
    assert table(two)[:2] == before
    assert table(two)[2]["env_steps"] > three[2]["env_steps"]


def test_a_frozen_v_stays_as_it_is_and_what_it_saw_is_taken_over(
    two: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, taken = [], []
    encoding, take_over = EncodeWork._encode, EncodeWork._take_over
    monkeypatch.setattr(EncodeWork, "_encode", lambda self, *a: encoded.append(self.uri) or encoding(self, *a))
    monkeypatch.setattr(EncodeWork, "_take_over", lambda self, unit: taken.append(unit) or take_over(self, unit))
    still = replace(TWO, rounds=replace(TWO.rounds, vision_steps=0))
    run = begun_like(two, tmp_path, still)
    iterate(run, LocalPool())
    digests = {open_existing(f"{run.uri}/round-00{number}").stage("vision").manifest().digest for number in (0, 1)}
    assert len(digests) == 1
    first, second = (open_existing(f"{run.uri}/round-00{number}") for number in (0, 1))
    assert (encoded.count(first.uri), encoded.count(second.uri)) == (0, TWO.rounds.episodes)
    assert taken == list(range(TWO.collect.episodes // TWO.collect.unit_episodes))
    latents = [part.need("latents", of=digests.copy().pop()) for part in (first, second)]
    before, after = ([shard["sha256"] for shard in made.content["shards"]] for made in latents)
    assert after[: len(before)] == before
    starts = [unpack(made.read(made.content["starts"]))[0]["mu"] for made in latents]
    assert torch.equal(starts[1][: len(starts[0])], starts[0])
    assert of_run(open_existing(f"{run.uri}/round-001")).memory is not None


@pytest.mark.parametrize("limit", [{"target": -500.0}, {"env_steps": 1}])
def test_enough_is_enough(limit: dict, two: Run, tmp_path: Path) -> None:
    config = replace(TWO, rounds=replace(TWO.rounds, **limit))
    run = begun_like(two, tmp_path, config)
    iterate(run, LocalPool())
    assert len(table(run)) == 1


@pytest.mark.slow
def test_a_driver_killed_in_any_round_leaves_no_trace(two: Run, job: Callable[..., Job], tmp_path: Path) -> None:
    words = ("tiny", "--run", tmp_path / "run", "--rounds", 2, *WORDS.split(), "--local")
    for reached in ("round-000/vision/checkpoints", "round-001/collect", "round-001/evolve"):
        folder = tmp_path / "run" / reached
        job("iterate", *words).kill_when(lambda folder=folder: any(folder.rglob("*")))
    assert job("iterate", *words).wait() == 0
    assert table(open_existing(str(tmp_path / "run"))) == table(two)[:2]


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(UserError, match=r"rounds\.count"):
        replace(TINY, rounds=Rounds(count=0)).check()
    with pytest.raises(UserError, match="vision-steps"):
        replace(TINY, rounds=Rounds(vision_steps=-1)).check()
    with pytest.raises(UserError, match=r"rounds\.fresh"):
        replace(TINY, rounds=Rounds(sigma=0.1, fresh=True)).check()
    with pytest.raises(UserError, match=r"rounds\.fresh"):
        replace(TINY, rounds=Rounds(refit=True, fresh=True)).check()
    with pytest.raises(UserError, match=r"polish\.generations"):
        replace(TINY, polish=Polish(generations=-1)).check()
    with pytest.raises(UserError, match=r"polish\.components"):
        replace(TINY, polish=Polish(components=0)).check()
    with pytest.raises(UserError, match=r"vision\.init"):
        replace(TINY, vision=replace(TINY.vision, frozen=True)).check()
