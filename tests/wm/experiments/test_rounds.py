"""Rounds: each builds on the one before, can be interrupted at any time, and more can follow."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import CHROMIUM, browser
from processes import Job
from tensors import unpacked

from wm.agents.trained import of_run
from wm.config.presets import PRESETS
from wm.config.schema import Config, Rounds
from wm.errors import UserError
from wm.experiments.rounds import is_complete, iterate, open_round, reason_to_end, round_config
from wm.pool import LocalPool, Progress
from wm.report import score_section as results
from wm.report.run_page import run_report
from wm.runs.run import Run, open_existing, start_run
from wm.stages.latents import EncodeWork
from wm.stages.warm_start import first_distribution

TINY = PRESETS["tiny"]
TWO = replace(
    TINY,
    memory=replace(TINY.memory, held_out=5),  # one episode of each round
    score=replace(TINY.score, episodes=1),
)
WORDS = "--memory.held-out 5 --score.episodes 1"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = start_run(str(tmp_path_factory.mktemp("rounds") / "two"), "tiny", TWO)
    iterate(run, LocalPool())
    return run


def later_rounds(config: Config, **fields: Any) -> Config:
    """The config with other overrides for the rounds after the first; __ stands for a dot, _ for a dash."""
    changed = {name.replace("__", ".").replace("_", "-"): value for name, value in fields.items()}
    return replace(config, rounds=replace(config.rounds, overrides=config.rounds.overrides | changed))


def with_first_round(two: Run, folder: Path, config: Config) -> Run:
    """A run with another config and the same first round, complete except for its score."""
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
    assert later.need("latents").metrics["frames"] > later.need("collect").metrics["frames"]
    assert len(list(Path(two.uri).glob("round-*/score/*/manifest-*.json"))) == 1  # only one agent is scored


def test_each_round_records_dreams_and_coverage(two: Run) -> None:
    first, second = table(two)
    for row in (first, second):
        assert np.isfinite([row["dream"]["mean"], row["dream"]["se"]]).all()
        assert {"cells", "cells_entropy", "tiles", "track_share", "speed", "speed_entropy"} <= set(row["coverage"])
    assert first["coverage"]["frames"] == 4 * 5  # every eighth frame that this round collected


def test_a_report_and_the_status_show_rounds(
    two: Run, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(results, "FILM_STEPS", 10)
    run = tmp_path / "two"
    shutil.copytree(two.uri, run)  # its rounds still refer to the original
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


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_on_a_phone_the_table_of_rounds_scrolls_and_the_page_does_not(
    two: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(results, "FILM_STEPS", 10)
    page = tmp_path / "report.html"
    page.write_text(run_report(two))
    with browser(tmp_path) as chromium:
        chromium.open(page, 390, 844, "light", mobile=True)
        assert chromium.evaluate("document.documentElement.scrollWidth") <= 390
        assert chromium.evaluate("[...document.querySelectorAll('.scrolls')].some(x => x.scrollWidth > x.clientWidth)")
        assert chromium.complaints == []


def test_a_round_without_disk_space_is_refused_before_it_starts(two: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    part = open_round(two, 1, f"{two.uri}/round-000")
    monkeypatch.setattr(part.storage, "free", lambda: 1000)
    with pytest.raises(UserError, match=r"latents needs about .* free some space"):
        part.tell(Progress("latents", 0, 2, "shards"))


def test_curiosity_affects_later_rounds_only(two: Run) -> None:
    curious = replace(TWO, collect=replace(TWO.collect, curiosity=0.5))
    first, second = (round_config(curious, number, two.uri) for number in (0, 1))
    assert first == round_config(TWO, 0, "")
    assert second.collect.curiosity == 0.5


def test_rounds_can_start_with_their_own_sigma(two: Run) -> None:
    wide = later_rounds(TWO, evolve__init_sigma=0.07)
    first, second = (round_config(wide, number, two.uri).check().evolve for number in (0, 1))
    assert (first.init_sigma, second.init_sigma) == (0, 0.07)
    assert round_config(TWO, 1, two.uri).evolve.init_sigma == 0


def test_later_rounds_use_the_full_covariance_for_all_weights() -> None:
    """A diagonal covariance is faster from scratch, a full one better afterwards."""
    small = PRESETS["car-racing-small"]
    first, second = (round_config(small, number, "runs/it/round-000") for number in (0, 1))
    assert [one.evolve.covariance for one in (first, second)] == ["diagonal", "full"]
    diagonal = later_rounds(small, evolve__covariance="diagonal")
    assert round_config(diagonal, 1, "runs/it/round-000").evolve.covariance == "diagonal"


def test_rounds_double_the_episodes_and_lower_sigma() -> None:
    best = later_rounds(PRESETS["car-racing-best"], evolve__episodes=4, evolve__init_sigma=0.02)
    best = replace(best, rounds=replace(best.rounds, max_episodes=16))
    rounds = [round_config(best, number, "runs/it").evolve for number in range(5)]
    assert [one.episodes for one in rounds] == [best.evolve.episodes, 4, 8, 16, 16]
    assert [round(one.init_sigma, 4) for one in rounds[1:]] == [0.02, 0.0141, 0.01, 0.01]
    fixed = replace(best, rounds=replace(best.rounds, max_episodes=0))
    assert round_config(fixed, 3, "runs/it").evolve.episodes == 4
    assert round_config(fixed, 3, "runs/it").evolve.init_sigma == 0.02


def test_the_reason_to_end_names_the_rule() -> None:
    def row(number: int, score: float, steps: int = 1000) -> dict[str, Any]:
        return {"round": number, "validation": score, "validation_se": 5.0, "env_steps": steps}

    best = PRESETS["car-racing-best"]
    risen = [row(0, 700), row(1, 850)]
    assert reason_to_end(best, []) == reason_to_end(best, risen) == ""
    assert reason_to_end(best, [*risen, row(2, 845)]) == ""  # may be bad luck
    stalled = [*risen, row(2, 845), row(3, 850)]
    assert reason_to_end(best, stalled) == "the last 2 rounds are not better than round 1"
    fixed = replace(best, evolve=replace(best.evolve, plateau=0))
    assert reason_to_end(fixed, stalled) == ""
    assert reason_to_end(fixed, [*stalled, row(4, 850), row(5, 850)]) == "all rounds are complete"
    target = replace(best, rounds=replace(best.rounds, target=845.0))
    assert reason_to_end(target, risen) == "the validation has reached the target 845"
    over = best.rounds.env_steps + 1
    assert f"the budget is {best.rounds.env_steps:,}" in reason_to_end(best, [row(0, 850, over)])


def test_fresh_rounds_start_c_from_scratch() -> None:
    fresh = later_rounds(TWO, evolve__refit=False)
    fresh = replace(fresh, rounds=replace(fresh.rounds, fresh=True)).check()
    second = round_config(fresh, 1, "runs/it/round-000").check()
    assert (second.evolve.init, second.vision.init) == ("", "runs/it/round-000")


def test_c_is_fitted_to_the_v_and_m_of_the_next_round(two: Run) -> None:
    first, second = (open_existing(f"{two.uri}/round-00{number}") for number in (0, 1))
    assert not first.config.evolve.refit
    assert second.config.evolve.refit
    before, now = of_run(first), of_run(second)
    assert before.memory is not None
    fitted = first_distribution(second, now.game, now.models)[0].mean
    assert 0 < np.abs(fitted - before.theta).max() < 1


def test_later_rounds_can_search_along_components(two: Run, tmp_path: Path) -> None:
    config = later_rounds(TWO, evolve__components=3, evolve__cut=50.0, evolve__generations=1, evolve__init_sigma=0.02)
    config = replace(config, rounds=replace(config.rounds, max_episodes=4, count=3))
    run = with_first_round(two, tmp_path, config)
    assert not is_complete(run)
    iterate(run, LocalPool())
    assert is_complete(run)
    parts = [open_existing(f"{tmp_path}/round-00{number}").config.evolve for number in (0, 1, 2)]
    assert [(one.components, one.cut) for one in parts] == [(0, 0.0), (3, 50.0), (3, 50.0)]
    assert [one.episodes for one in parts] == [2, 2, 4]
    further = later_rounds(config, evolve__generations=2)
    assert not is_complete(start_run(run.uri, "tiny", further))


def test_a_config_that_can_not_be_searched_along_components_is_refused_before_the_first_round(
    two: Run, tmp_path: Path
) -> None:
    config = replace(
        later_rounds(TWO, evolve__components=3, evolve__init_sigma=0.02), evolve=replace(TWO.evolve, scaled=True)
    )
    with pytest.raises(UserError, match=r"evolve\.scaled"):
        iterate(with_first_round(two, tmp_path, config), LocalPool())


def test_rounds_can_use_another_learning_rate_of_m(two: Run) -> None:
    usual, slow = TWO.memory.learning_rate, later_rounds(TWO, memory__learning_rate=0.0002)
    assert [round_config(slow, number, two.uri).memory.learning_rate for number in (0, 1)] == [usual, 0.0002]
    assert round_config(TWO, 1, two.uri).memory.learning_rate == usual


def test_rounds_can_be_added_and_the_last_one_extended(two: Run) -> None:
    before = table(two)
    more = replace(TWO, rounds=replace(TWO.rounds, count=3))
    iterate(start_run(two.uri, "tiny", more), LocalPool())
    three = table(two)
    assert three[:2] == before
    further = later_rounds(more, evolve__generations=3)
    iterate(start_run(two.uri, "tiny", further), LocalPool())
    assert table(two)[:2] == before
    assert table(two)[2]["env_steps"] > three[2]["env_steps"]


def test_a_frozen_v_is_unchanged_and_its_latents_are_copied(
    two: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, copied = [], []
    make, copy = EncodeWork._make, EncodeWork._copy
    monkeypatch.setattr(EncodeWork, "_make", lambda self, *a: encoded.append(self.uri) or make(self, *a))
    monkeypatch.setattr(EncodeWork, "_copy", lambda self, unit: copied.append(unit) or copy(self, unit))
    frozen = later_rounds(TWO, vision__frozen=True)
    run = with_first_round(two, tmp_path, frozen)
    iterate(run, LocalPool())
    digests = {open_existing(f"{run.uri}/round-00{number}").stage("vision").manifest().digest for number in (0, 1)}
    assert len(digests) == 1
    first, second = (open_existing(f"{run.uri}/round-00{number}") for number in (0, 1))
    episodes = TWO.rounds.overrides["collect.episodes"]
    assert (encoded.count(first.uri), encoded.count(second.uri)) == (0, episodes // second.config.collect.unit_episodes)
    assert copied == list(range(TWO.collect.episodes // TWO.collect.unit_episodes))
    latents = [part.need("latents") for part in (first, second)]
    before, after = ([shard["sha256"] for shard in made.content["shards"]] for made in latents)
    assert after[: len(before)] == before
    starts = [unpacked(made.read(made.content["starts"]))[0]["mu"] for made in latents]
    assert torch.equal(starts[1][: len(starts[0])], starts[0])
    assert of_run(open_existing(f"{run.uri}/round-001")).memory is not None


@pytest.mark.parametrize("limit", [{"target": -500.0}, {"env_steps": 1}])
def test_rounds_stop_at_the_target_or_the_step_budget(limit: dict, two: Run, tmp_path: Path) -> None:
    config = replace(TWO, rounds=replace(TWO.rounds, **limit))
    run = with_first_round(two, tmp_path, config)
    iterate(run, LocalPool())
    assert len(table(run)) == 1


@pytest.mark.slow
def test_kills_in_any_round_leave_no_trace(two: Run, job: Callable[..., Job], tmp_path: Path) -> None:
    words = ("tiny", "--run", tmp_path / "run", "--rounds", 2, *WORDS.split(), "--local")
    for reached in ("round-000/vision/checkpoints", "round-001/collect", "round-001/evolve"):
        folder = tmp_path / "run" / reached
        job("iterate", *words).kill_when(lambda folder=folder: any(folder.rglob("*")))
    assert job("iterate", *words).wait() == 0
    assert table(open_existing(str(tmp_path / "run"))) == table(two)[:2]


def test_wrong_values_are_refused() -> None:
    with pytest.raises(UserError, match=r"rounds\.count"):
        replace(TINY, rounds=Rounds(count=0)).check()
    with pytest.raises(UserError, match=r"vision\.stepps"):
        later_rounds(TINY, vision__stepps=1).check()
    for overrides in ({"evolve.init-sigma": 0.1}, {"evolve.refit": True}):
        with pytest.raises(UserError, match=r"rounds\.fresh"):
            replace(TINY, rounds=Rounds(overrides=overrides, fresh=True)).check()
    with pytest.raises(UserError, match=r"vision\.init"):
        replace(TINY, vision=replace(TINY.vision, frozen=True)).check()


def test_wrong_values_of_later_rounds_are_refused_before_the_first_round(tmp_path: Path) -> None:
    wrong = (
        (later_rounds(TINY, vision__steps=-1), r"vision\.steps"),
        (later_rounds(TINY, evolve__components=-1), r"evolve\.components"),
    )
    for number, (config, field) in enumerate(wrong):
        run = start_run(str(tmp_path / str(number)), "tiny", config)
        with pytest.raises(UserError, match=field):
            iterate(run, LocalPool())
        assert list(run.storage.sizes()) == ["config.json"]
