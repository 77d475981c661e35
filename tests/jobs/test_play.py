"""`jobs.play`: one HTML file for an agent or a run."""

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
    """Also for a game that is not part of the project: its actions have keys."""
    uri = tmp_path / "run"
    shutil.copytree(cartpole.uri, uri)
    made = job("play", "--run", uri)
    assert made.wait() == 0, made.stderr
    assert made.summary["run"] == str(uri)
    text = (uri / "play.html").read_text()
    assert "the game CartPole-v1" in text
    assert re.findall(r'"codes":\["(\w+)"\]', text) == ["Digit1", "Digit2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--agent", "car-racing", "--to", "film.txt"], "--to must end in .html, got film.txt"),
        (["--agent", "car-racing", "--to", "/proc/such/page.html"], "can't write /proc/such/page.html"),
        (["--agent", "nobody"], "nobody"),
        ([], "required"),
    ],
)
def test_user_errors(job: Callable[..., Job], words: list[str], message: str) -> None:
    made = job("play", *words)
    assert made.wait() == 2
    assert message in made.stderr
    assert "Traceback" not in made.stderr


def test_without_a_memory_stage_the_error_names_its_job(cartpole: Run, tmp_path: Path, job: Callable[..., Job]) -> None:
    uri = tmp_path / "run"
    shutil.copytree(cartpole.uri, uri, ignore=shutil.ignore_patterns("memory"))
    made = job("play", "--run", uri)
    assert made.wait() == 2
    assert f"python -m jobs.memory --run {uri}" in made.stderr
    assert "Traceback" not in made.stderr
