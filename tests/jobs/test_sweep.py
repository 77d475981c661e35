"""`jobs.sweep` as a process: it survives SIGKILL, repeats no finished trial and writes the paper's table."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Job

from wm.experiments.sweep import Sweep
from wm.experiments.trials import result_of, run_trial
from wm.pool import LocalPool
from wm.runs.run import Run, open_existing


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "lease")
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


@pytest.fixture
def base(cartpole: Run, tmp_path: Path) -> Path:
    """A copy of the run for the sweep."""
    return Path(shutil.copytree(cartpole.uri, tmp_path / "base"))


@pytest.mark.slow
def test_a_killed_sweep_resumes_without_repeating_trials(cartpole: Run, base: Path, job: Callable[..., Job]) -> None:
    """Tune, with two trials at a time, gives the same results as trials run one after the other."""
    words = ("sweep", "--run", base, "--tau", 0.5, 1.15, "--seeds", 2)
    scored = "sweep/tau-*/score/*/manifest-*.json"
    job(*words, "--workers.count", 1).kill_when(lambda: len(list(base.glob(scored))) >= 1)
    finished = {path.parents[2] for path in base.glob(scored)}
    assert 1 <= len(finished) < 4
    before = {folder: files(folder) for folder in finished}
    again = job(*words, "--workers.count", 2)
    assert again.wait() == 0, again.stderr
    assert not {folder.name for folder in finished} & set(again.summary["made"])
    assert before == {folder: files(folder) for folder in finished}
    assert len(list(base.glob(scored))) == 4
    done = [(one["tau"], one["seed"]) for one in again.summary["trials"]]
    assert done == [(0.5, 1), (1.15, 1), (0.5, 2), (1.15, 2)]
    assert len(again.stdout.splitlines()) == 1
    for name in ("table.md", "table.csv", "table.svg"):
        assert (base / "sweep" / name).stat().st_size > 100
    assert [row["tau"] for row in json.loads((base / "sweep/table.json").read_text())["rows"]] == [0.5, 1.15]
    assert (base / "sweep/table.md").read_text() in again.stderr
    search = Sweep(open_existing(str(base)), cartpole.config, [0.5, 1.15], 2)
    assert not search.missing
    trial = search.trials[-1]
    theirs = result_of(trial, search.place)
    shutil.rmtree(base / "sweep")
    assert theirs == run_trial(trial, search.place, LocalPool())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--tau 0 --run RUN", "--tau must be a finite number above 0, got 0.0"),
        ("--seeds 0 --run RUN", "--seeds must be in [1, 1000], got 0"),
        ("--cpus-each 0 --run RUN", "--cpus-each must be 1 or more, got 0"),
        (
            "--run RUN --memory.steps 9",
            "memory is not complete in RUN (6 of 9): run `python -m jobs.memory --run RUN`, or lower --memory.steps",
        ),
        ("--run NOWHERE", "no run in NOWHERE: start one with"),
    ],
)
def test_user_errors(cartpole: Run, tmp_path: Path, job: Callable[..., Job], words: str, message: str) -> None:
    names = {"RUN": cartpole.uri, "NOWHERE": str(tmp_path / "nowhere")}
    for name, uri in names.items():
        words, message = words.replace(name, uri), message.replace(name, uri)
    wrong = job("sweep", *words.split(), "--local")
    assert wrong.wait() == 2, wrong.stderr
    assert message in wrong.stderr
    assert wrong.stdout == ""
