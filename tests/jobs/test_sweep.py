"""A sweep as typed: it survives SIGKILL, repeats nothing that is finished, and ends in the paper's table."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from processes import Job

from wm.pool import LocalPool
from wm.run import Run, must_open
from wm.sweep import Trial, outcome, run_trial


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*.json") if path.is_file()}


def test_killed_mid_way_it_goes_on_and_repeats_nothing(copy: Callable[..., Path], job: Callable[..., Job]) -> None:
    """And on a cluster, two trials at a time, the outcome is the same as here, one after the other."""
    folder = copy()
    base = must_open(str(folder))
    evolve = replace(base.config.evolve, dream_steps=16)
    config = replace(base.config, evolve=replace(evolve, generations=3))
    words = ("sweep", "--run", folder, "--tau", 0.5, 1.15, "--seeds", 2, "--evolve.dream-steps", 16)
    scored = "sweep/tau-*/score/*/manifest-*.json"
    job(*words, "--workers.count", 1).kill_when(lambda: len(list(folder.glob(scored))) >= 1)
    finished = list(folder.glob(scored))
    assert len(finished) < 4
    before = files(finished[0].parents[2])
    again = job(*words, "--workers.count", 2)
    assert again.wait() == 0, again.stderr
    assert finished[0].parents[2].name not in again.summary["made"]
    for path, state in before.items():
        if path.parent.name != "lease":
            assert files(finished[0].parents[2])[path] == state
    assert len(list(folder.glob(scored))) == 4
    assert [one["trial"]["tau"] for one in again.summary["trials"]] == [0.5, 1.15, 0.5, 1.15]
    assert [one["trial"]["seed"] for one in again.summary["trials"]] == [1, 1, 2, 2]
    assert len(again.stdout.splitlines()) == 1
    for name in ("table.md", "table.csv", "table.json", "table.svg"):
        assert (folder / "sweep" / name).stat().st_size > 100
    assert len(json.loads((folder / "sweep/table.json").read_text())["rows"]) == 2
    assert "| 0.50 |" in again.stderr or "| **0.50** |" in again.stderr
    trial = Trial(1.15, 2)
    theirs = outcome(trial, str(folder), config)
    other = run_trial(trial, str(copy()), config, LocalPool())
    assert theirs is not None
    assert (theirs.dream, theirs.real, theirs.validation) == (other.dream, other.real, other.validation)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--tau 0 --run RUN", "--tau 0.0 has to be above 0"),
        ("--seeds 0 --run RUN", "--seeds 0 leaves nothing to do: say 1 or more"),
        ("--cpus-each 0 --run RUN", "--cpus-each 0: say 1 or more"),
        ("--run RUN --memory.steps 9", "no complete memory in RUN: run `python -m jobs.train_memory --run RUN`"),
        ("--run NOWHERE", "no run in NOWHERE: start one with"),
    ],
)
def test_a_mistake_is_one_line(tiny: Run, tmp_path: Path, job: Callable[..., Job], words: str, message: str) -> None:
    names = {"RUN": tiny.uri, "NOWHERE": str(tmp_path / "nowhere")}
    for name, uri in names.items():
        words, message = words.replace(name, uri), message.replace(name, uri)
    wrong = job("sweep", *words.split(), "--local")
    assert wrong.wait() == 2, wrong.stderr
    assert message in wrong.stderr
    assert wrong.stdout == ""
