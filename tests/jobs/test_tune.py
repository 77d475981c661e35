"""`jobs.tune` as a process: what it shares between trials, its files, its resumption and its errors."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Job
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wm.runs.run import Run, open_existing
from wm.runs.status import stage_statuses


@pytest.fixture(scope="module")
def searched(cartpole: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job]:
    """A search over a field of M and one of C, complete."""
    folder = tmp_path_factory.mktemp("tune")
    words = ("--search", "memory.hidden=16,24", "--search", "evolve.sigma0=0.02..0.2 log 2", "--searcher", "grid")
    made = Job(folder, "tune", "--base", cartpole.uri, "--run", folder / "search", *words, "--local")
    assert made.wait() == 0, made.stderr
    return folder / "search", made


def test_trials_share_what_their_fields_do_not_touch(cartpole: Run, searched: tuple[Path, Job]) -> None:
    search, made = searched
    assert len(made.summary["made"]) == 4
    base = {name: status.manifest for name, status in stage_statuses(cartpole).items()}
    memories = {}
    for number in range(4):
        run = open_existing(str(search / f"trials/{number:04d}"))
        assert {key.partition("/")[0] for key in run.storage.sizes()} - {"config.json", "seconds.json"} <= {
            *("evolve", "score", "lease")
        }, "a trial repeated a stage that it shares"
        stages = {name: status.manifest for name, status in stage_statuses(run).items()}
        assert stages["vision"].digest == base["vision"].digest  # type: ignore[union-attr]
        memories[number] = stages["memory"].digest  # type: ignore[union-attr]
    assert memories[0] == memories[1] != memories[2] == memories[3]
    assert len(list((search / "shared").iterdir())) == 2
    assert not list((search / "base").glob("memory"))


def test_the_results_of_a_search(searched: tuple[Path, Job]) -> None:
    search, made = searched
    table = json.loads((search / "table.json").read_text())
    assert [one["state"] for one in table["trials"]] == ["complete"] * 4
    values = [one["validation"] for one in table["trials"]]
    assert values == sorted(values, reverse=True)
    assert table["score"]["episodes"] == 2
    assert made.summary["best"] == table["best"]
    assert f"--base {search}/trials/" in table["best"]
    read = list(csv.DictReader((search / "table.csv").open()))
    assert [(row["memory.hidden"], row["evolve.sigma0"]) for row in read] == [
        *(("16", "0.02"), ("16", "0.2"), ("24", "0.02"), ("24", "0.2"))
    ]
    page = (search / "tune.html").read_text()
    assert "Which fields mattered" in page
    assert "<script" not in page
    assert (search / "table.md").read_text() in made.stderr
    events = EventAccumulator(str(search / "hparams/0003"))
    events.Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata
    [validation] = events.Scalars("validation")
    assert validation.value == pytest.approx(float(read[3]["validation"]))


def test_the_same_command_makes_nothing_again(searched: tuple[Path, Job], tmp_path: Path) -> None:
    search, _ = searched
    table = (search / "table.md").read_bytes()
    again = Job(tmp_path, "tune", "--run", search, "--local")
    assert again.wait() == 0, again.stderr
    assert again.summary["made"] == []
    assert (search / "table.md").read_bytes() == table


def test_more_seeds_and_a_model(cartpole: Run, tmp_path: Path, job: Callable[..., Job]) -> None:
    """Trials of TPE on Ray, and then a second seed of each."""
    words = ("tune", "--run", tmp_path / "search", "--no-score")
    space = ("--search", "evolve.sigma0=0.01..0.3 log", "--search", "controller.bias=True,False")
    first = job(*words, "--base", cartpole.uri, *space, "--searcher", "tpe", "--trials", 3, "--workers.count", 2)
    assert first.wait() == 0, first.stderr
    assert first.summary["made"] == ["0000", "0001", "0002"]
    default = next(one for one in first.summary["trials"] if one["number"] == 0)
    assert default["values"] == {"evolve.sigma0": 0.06, "controller.bias": True}  # the base's own values
    more = job(*words, "--seeds", 2, "--trials", 4, "--local")
    assert more.wait() == 0, more.stderr
    assert sorted(more.summary["made"]) == ["0000-seed-1", "0001-seed-1", "0002-seed-1", "0003", "0003-seed-1"]
    assert all(len(one["runs"]) == 2 for one in more.summary["trials"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--search evolve.sigmas=1,2 --trials 2", "the config has no field evolve.sigmas"),
        ("--search evolve.sigma0=0,1 --trials 2", "--evolve.sigma0 must be above 0, got 0.0"),
        ("--search evolve.population=4..x --trials 2", "--evolve.population must be an integer, got x"),
        ("--search evolve.sigma0=1..0.1 --trials 2", "must have its lower end first, got 1..0.1"),
        ("--search evolve.seed=1,2 --trials 2", "--seeds N runs each trial with N seeds"),
        ("--search workers.count=1,2 --trials 2", "--search can't vary workers.count"),
        ("--search evolve.sigma0=0.1..1 --searcher grid", "a grid needs choices of evolve.sigma0"),
        ("--search evolve.sigma0=0.1..1", "--trials must be 1 or more, got 0"),
        ("--trials 3", "nothing to search: add --search FIELD="),
        ("--search memory.steps=6,9 --trials 2", "needs a base without the stage memory"),
        ("--search evolve.sigma0=0.1,0.2 --trials 2 --seeds -1", "--seeds must be 1 or more, got -1"),
    ],
)
def test_user_errors(cartpole: Run, tmp_path: Path, job: Callable[..., Job], words: str, message: str) -> None:
    wrong = job("tune", "--base", cartpole.uri, "--run", tmp_path / "search", *words.split(), "--local")
    assert wrong.wait() == 2, wrong.stderr
    assert message in wrong.stderr
    assert wrong.stdout == ""
    assert not (tmp_path / "search/trials").exists()


def test_a_search_that_is_not_there(tmp_path: Path, job: Callable[..., Job]) -> None:
    wrong = job("tune", "--run", tmp_path / "nowhere", "--local")
    assert wrong.wait() == 2
    assert f"no search in {tmp_path}/nowhere: start one with `python -m jobs.tune PRESET" in wrong.stderr


def test_another_search_in_the_same_place(searched: tuple[Path, Job], tmp_path: Path) -> None:
    other = Job(tmp_path, "tune", "--run", searched[0], "--search", "evolve.sigma0=1,2", "--trials", 2, "--local")
    assert other.wait() == 2
    assert "was started with another --search" in other.stderr
