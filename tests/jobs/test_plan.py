"""`jobs.plan` as a process."""

import json
import os
from pathlib import Path

from processes import type_in

from wm.formatting import format_duration


def test_the_plan_of_a_pipeline_on_a_cluster(tmp_path: Path) -> None:
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps({"job": "bench", "figures": [{"what": "training V, 2 threads", "figure": 100.0}]}))
    words = ("car-racing", "--cpus", 64, "--gpus", 1, "--price-cpu", 0.02, "--price-gpu", 1, "--vision.steps", 1000)
    made = type_in("jobs.plan", *words, "--bench", bench)
    assert made.returncode == 0, made.stderr
    plan = json.loads(made.stdout)
    assert plan["cost"] > 0
    assert "128,000 frames" in made.stderr.replace("\n", " ")
    assert "not measured" in made.stderr.replace("\n", " ")


def test_a_plan_with_the_rates_of_this_machine() -> None:
    made = type_in("jobs.plan", "demo", "--measure")
    assert made.returncode == 0, made.stderr
    plan = json.loads(made.stdout)
    assert plan["stages"][0]["cpus"] <= (os.cpu_count() or 1)
    assert 60 < plan["seconds"] < 4 * 3600
    duration = format_duration(plan["seconds"])
    assert f"demo will take about {duration} here" in made.stderr.replace("\n", " ")


def test_the_plan_of_rounds() -> None:
    plan = json.loads(type_in("jobs.plan", "tiny", "--rounds", 2).stdout)
    assert [row["stage"] for row in plan["stages"]][-2:] == ["round 1 evolve", "round 1 score"]


def test_the_plan_of_several_runs_on_several_gpus() -> None:
    words = ("car-racing", "--cpus", 64, "--gpus", 2, "--runs", 4)
    stages = {row["stage"]: row for row in json.loads(type_in("jobs.plan", *words).stdout)["stages"]}
    assert stages["vision"]["gpus"] == 2
    assert stages["vision"]["work"].startswith("4 x ")
    assert stages["collect"]["cpus"] == 64


def test_user_errors(tmp_path: Path) -> None:
    for words in (
        ("nothing",),
        ("tiny", "--cpus", 0),
        ("tiny", "--rounds", -1),
        ("tiny", "--runs", 3),
        ("tiny", "--bench", tmp_path / "none"),
    ):
        refused = type_in("jobs.plan", *words)
        assert refused.returncode == 2, words
        assert "Traceback" not in refused.stderr
