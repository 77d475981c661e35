"""The report of a complete run, of an unfinished one, and of one with hostile names."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from processes import Job

from jobs.display import show_cost
from wm.experiments.sweep import TauResult
from wm.formatting import format_duration
from wm.report import score_section
from wm.report.provenance import changed_flags
from wm.report.run_page import run_report
from wm.report.temperature import data, rows_of
from wm.runs.reader import sealed
from wm.runs.run import Run, open_existing
from wm.runs.status import stage_statuses

PARTS = ("In the game", "Play in the dream", "Comparison with other agents", "Score against generation")
PARTS += ("Score against steps", "Reconstructions", "Dimensions of z", "Dreams at several temperatures")
PARTS += ("M&#x27;s loss", "Cost", "Reproduction")


@pytest.fixture(autouse=True)
def short_films(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_section, "FILM_STEPS", 10)  # only in this process, not in jobs


def test_a_report_is_one_small_file_with_all_parts(copy: Callable[..., Path], job: Callable[..., Job]) -> None:
    uri = copy()
    made = job("report", "--run", uri)
    assert made.wait() == 0, made.stderr
    path = Path(made.summary["report"])
    assert path == uri / "report.html"
    shown = path.read_text()
    assert made.summary["bytes"] == path.stat().st_size < 8e6
    assert str(path) in made.stderr
    for part in PARTS:
        assert part in shown
    assert 'class="missing"' not in shown
    assert not re.search(r"""(?:src|href|srcset)="(?!data:image/)""", shown)
    assert "tau 1.3" in shown
    baselines = json.loads((uri / "baselines.json").read_text())["baselines"]
    assert [(one["name"], one["episodes"], one["steps"]) for one in baselines] == [
        ("Random actions", 16, 1000),
        ("Doing nothing", 16, 1000),
    ]
    assert baselines[1]["score"] < -80  # each of 1,000 steps costs 0.1
    for one in baselines:
        assert f"{one['score']:,.0f} (SD {one['std']:,.0f})" in shown
    score = json.loads((uri / "stdout").read_text())["stages"]["score"]
    beaten = score["score"] - baselines[0]["score"] > 2 * math.hypot(score["se"], baselines[0]["se"])
    assert ("The agent beats random actions" if beaten else "The agent does not beat random actions") in shown
    captions = re.findall(r"<figcaption><b>[^<]+</b> <span>(.)", shown)
    assert len(captions) > 8
    assert all(letter.isupper() for letter in captions)
    assert f"jobs.pipeline tiny --run {uri}" in shown
    assert "--evolve.sigma0" in shown


@pytest.mark.parametrize(
    ("without", "command"),
    [
        (("score",), "jobs.score"),
        (("score", "evolve"), "jobs.evolve"),
        (("score", "evolve", "memory"), "jobs.memory"),
        (("score", "evolve", "memory", "latents", "vision"), "jobs.vision"),
        (("score", "evolve", "memory", "latents", "vision", "collect"), "jobs.collect"),
    ],
)
def test_the_report_of_an_unfinished_run_names_the_commands_for_missing_parts(
    copy: Callable[..., Path], without: tuple[str, ...], command: str
) -> None:
    uri = copy(*without)
    shown = run_report(open_existing(str(uri)))
    assert f"python -m {command} --run {uri}" in shown
    lines = re.findall(r'<p class="missing">(.*?)</p>', shown)
    assert lines
    assert all(line.endswith(".") for line in lines)


def test_the_report_of_an_unfinished_evolution_shows_the_best_validation(copy: Callable[..., Path]) -> None:
    uri = copy("score")
    for manifest in (uri / "evolve").rglob("manifest-*"):
        manifest.unlink()
    shown = run_report(open_existing(str(uri)))
    assert "validation so far" in shown
    assert 'class="film"' in shown
    assert "Score against generation" in shown


def test_without_rollouts_only_the_pictures_that_need_them_are_missing(copy: Callable[..., Path]) -> None:
    uri = copy()
    for shard in (uri / "collect" / "shards").glob("*.parquet"):
        shard.unlink()
    shown = run_report(open_existing(str(uri)))
    assert "Reconstructions" not in shown
    assert "Dreams at several temperatures" in shown
    assert f"jobs.collect --run {uri}" in shown


def test_a_sweep_over_temperatures_is_shown_with_its_gaps(cartpole: Run, tmp_path: Path) -> None:
    uri = Path(shutil.copytree(cartpole.uri, tmp_path / "swept"))
    alone = run_report(open_existing(str(uri)))
    assert "Calibration of the predicted end" in alone
    assert "Evolution in dreams" not in alone  # no published scores for this game
    outcomes = [
        TauResult(tau, seed, str(uri), 2, 9.0, (90.0 - tau, 5.0, 8), (20.0 + 10 * seed, 4.0, 8))
        for tau in (0.1, 1.0)
        for seed in (1, 2)
    ]
    (uri / "sweep").mkdir()
    (uri / "sweep/table.json").write_bytes(sealed(data(rows_of(outcomes), "gym:CartPole-v1"), "table.json"))
    shown = run_report(open_existing(str(uri)))
    assert "Evolution in dreams" in shown
    assert "35 (SD\u00a0" in shown  # the mean of both seeds
    assert "+55" in shown  # the gap at tau 0.1
    assert "16 episodes from 2 evolutions" in shown


def test_names_and_values_are_escaped(copy: Callable[..., Path]) -> None:
    uri = copy()
    hostile = uri.parent / "<img src=x onerror=alert(1)>&\"'"
    uri.rename(hostile)
    frozen = json.loads((hostile / "config.json").read_text())
    frozen["preset"] = "<script>alert(2)</script>"
    frozen["config"]["evolve"]["init"] = "</td><script>alert(3)</script>"
    del frozen["seal"]
    (hostile / "config.json").write_bytes(sealed(frozen, "config.json"))
    # Manifests of other configs are refused.
    for path in (hostile / "evolve").rglob("manifest-*.json"):
        made = json.loads(path.read_text())
        made["config"]["evolve.init"] = frozen["config"]["evolve"]["init"]
        del made["seal"]
        path.write_bytes(sealed(made, path.relative_to(hostile).as_posix()))
    shown = run_report(open_existing(str(hostile)))
    assert "<script" not in shown
    assert "<img src=x" not in shown
    assert "&lt;script&gt;alert(2)" in shown
    assert "alert(3)&lt;/script&gt;" in shown


def test_errors(tmp_path: Path, copy: Callable[..., Path], job: Callable[..., Job]) -> None:
    nowhere = job("report", "--run", tmp_path / "nowhere")
    assert nowhere.wait() == 2
    assert nowhere.stderr.startswith("no run in ")
    uri = copy()
    frozen = json.loads((uri / "config.json").read_text())
    frozen["config"]["game"] = "<b>chess</b>"
    del frozen["seal"]
    (uri / "config.json").write_bytes(sealed(frozen, "config.json"))
    unknown = job("report", "--run", uri)
    assert unknown.wait() == 2
    assert unknown.stderr.count("\n") == 1


def test_flags_that_differ_from_the_preset(tiny: Run) -> None:
    assert changed_flags("tiny", tiny.config) == []
    config = replace(
        tiny.config,
        seed=7,
        memory=replace(tiny.config.memory, reward=False, done=True),
        evolve=replace(tiny.config.evolve, generations=9),
    )
    words = ["--seed", "7", "--memory.no-reward", "--memory.done", "--evolve.generations", "9"]
    assert changed_flags("tiny", config) == words


def test_durations() -> None:
    assert [format_duration(x) for x in (4.2, 278, 11130, 400_000)] == ["0:04", "4:38", "3:05:30", "4.6 days"]


def test_show_cost_prints_a_row_for_each_stage(tiny: Run, capsys: pytest.CaptureFixture[str]) -> None:
    show_cost([status.manifest for status in stage_statuses(tiny).values() if status.manifest], tiny.uri)
    head, *rows, last = capsys.readouterr().err.splitlines()
    assert head.split() == ["stage", "time", "steps", "CPU", "hours", "GPU", "hours"]
    assert [row.split()[0] for row in rows] == ["collect", "vision", "latents", "memory", "evolve", "score"]
    assert all(float(row.split()[-2]) > 0 for row in rows)  # CPU hours
    assert last.endswith(f"python -m jobs.report --run {tiny.uri}")
