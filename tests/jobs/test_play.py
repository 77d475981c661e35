"""`jobs.play`: one HTML file, of an agent or of a run."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Job

from wm.runs.run import Run


def test_the_page_of_an_agent(tmp_path: Path, job: Callable[..., Job]) -> None:
    path = tmp_path / "dream.html"
    made = job("play", "--agent", "car-racing", "--to", path)
    assert made.wait() == 0, made.stderr
    assert made.summary["page"] == str(path)
    assert made.summary["bytes"] == path.stat().st_size < 8e6
    assert str(path) in made.stderr


def test_the_page_of_a_run_goes_into_the_run(cartpole: Run, tmp_path: Path, job: Callable[..., Job]) -> None:
    """Of somebody else's game, too: its actions have keys."""
    uri = tmp_path / "run"
    shutil.copytree(cartpole.uri, uri)
    made = job("play", "--run", uri)
    assert made.wait() == 0, made.stderr
    assert made.summary["run"] == str(uri)
    text = (uri / "play.html").read_text()
    assert "the game CartPole-v1" in text
    assert re.findall(r'"codes":\["(\w+)"\]', text) == ["Digit1", "Digit2"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--agent", "car-racing", "--to", "film.txt"], "--to film.txt: must end in .html"),
        (["--agent", "car-racing", "--to", "no/such/page.html"], "folder no/such does not exist"),
        (["--agent", "nobody"], "nobody"),
        ([], "required"),
    ],
)
def test_mistakes(job: Callable[..., Job], words: list[str], says: str) -> None:
    made = job("play", *words)
    assert made.wait() == 2
    assert says in made.stderr
    assert "Traceback" not in made.stderr


def test_the_job_that_makes_what_is_missing_is_named(cartpole: Run, tmp_path: Path, job: Callable[..., Job]) -> None:
    uri = tmp_path / "run"
    shutil.copytree(cartpole.uri, uri, ignore=shutil.ignore_patterns("memory"))
    made = job("play", "--run", uri)
    assert made.wait() == 2
    assert f"python -m jobs.train_memory --run {uri}" in made.stderr
    assert "Traceback" not in made.stderr
