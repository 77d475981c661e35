"""Exporting an agent, scoring the file and unpacking it, as processes."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

from processes import Job, type_in

from wm.agents.trained import of_run
from wm.runs.run import Run


def test_an_exported_agent_scores_the_same_as_its_run(tiny: Run, tmp_path: Path) -> None:
    path = tmp_path / "agents" / "it.safetensors"
    exported = type_in("jobs.export", "--run", tiny.uri, "--to", path)
    assert exported.returncode == 0, exported.stderr
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "it-decoder.safetensors",
        "it.md",
        "it.safetensors",
    ]
    words = ("--agent", path, "--run", tmp_path / "run", "--episodes", 2, "--unit-episodes", 1, "--local")
    scored = type_in("jobs.score", *words)
    assert scored.returncode == 0, scored.stderr
    made = tiny.stage("score", of=of_run(tiny).digest).manifest()
    assert json.loads(scored.stdout)["stages"]["score"]["score"] == made.metrics["score"]
    carded = type_in("jobs.export", "--run", tiny.uri, "--to", path, "--scored", tmp_path / "run")
    assert carded.returncode == 0, carded.stderr
    assert f"**{made.metrics['score']:.1f} ± " in path.with_suffix(".md").read_text()
    watched = type_in("jobs.watch", "--agent", path, "--steps", 4, "--to", tmp_path / "new" / "film.webp")
    assert watched.returncode == 0, watched.stderr
    assert (tmp_path / "new" / "film.webp").read_bytes()[8:12] == b"WEBP"
    unpacked = type_in("jobs.unpack", "--agent", path, "--run", tmp_path / "unpacked")
    assert unpacked.returncode == 0, unpacked.stderr
    assert f"--evolve.init {tmp_path / 'unpacked'}" in unpacked.stderr
    refused = type_in("jobs.unpack", "--agent", path, "--run", tiny.uri)
    assert refused.returncode == 2
    assert "holds another run" in refused.stderr
    blocked = type_in("jobs.export", "--run", tiny.uri, "--to", "/proc/it.safetensors")
    assert (blocked.returncode, blocked.stderr.count("\n")) == (2, 1)
    assert "can't write /proc/it.safetensors" in blocked.stderr
    again = type_in("jobs.export", "--run", tiny.uri, "--to", path, "--half")
    assert again.returncode == 2
    assert "already exists with other content" in again.stderr


def test_an_unknown_agent_is_a_user_error(tmp_path: Path) -> None:
    for words in (("--agent", "nobody"), ("--agent", tmp_path / "none.safetensors")):
        refused = type_in("jobs.score", *words)
        assert refused.returncode == 2
        assert "no agent" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_the_command_to_resume_names_the_agent(tmp_path: Path, job: Callable[..., Job]) -> None:
    words = ("--agent", "car-racing", "--episodes", 1000, "--run", tmp_path / "run", "--local")
    stopped = job("score", *words)
    stopped.until(lambda: stopped.err.exists() and "0/1,000" in stopped.stderr)
    stopped.send(signal.SIGINT)
    assert stopped.wait() == 130, stopped.stderr
    assert stopped.stderr.splitlines()[-1].endswith(f"python -m jobs.score {' '.join(map(str, words))}")
