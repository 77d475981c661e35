"""docs/own-machines.md as it is written: machines in a lab, and the Slurm script with stand-ins for its commands."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, Job

from wm.runs.run import Run, open_existing
from wm.runs.status import stage_statuses

GUIDE = (ROOT / "docs/own-machines.md").read_text()
TOKEN, OTHER = "a" * 64, "b" * 64
SCRIPT = ROOT / "cluster/slurm.sh"
SECONDS = 400
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def environment(**more: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SLURM_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return clean | {"PATH": path, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN} | more


def digests(uri: Path | str) -> dict[str, str]:
    found = stage_statuses(open_existing(str(uri)))
    return {name: status.manifest.digest for name, status in found.items() if status.complete and status.manifest}


@pytest.fixture
def background(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts programs, each in a process group of its own, that end with the test."""
    started: list[subprocess.Popen] = []

    def start(words: list[str], env: dict[str, str], name: str) -> subprocess.Popen:
        with (tmp_path / name).open("w") as log:
            made = subprocess.Popen(words, env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        started.append(made)
        return made

    yield start
    for one in started:
        if one.poll() is None:
            one.terminate()
            try:
                one.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(one.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_machines_in_a_lab(
    tiny: Run, tmp_path: Path, background: Callable[..., Any], job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines on loopback, started by the guide's own lines."""
    head, other = re.findall(r"^ray start .*$", GUIDE, re.MULTILINE)
    address = f"127.0.0.2:{free_port()}"
    here = {"192.168.1.10:6379": address, "192.168.1.10": "127.0.0.2", "--port=6379": f"--port={address[10:]}"}

    def line(text: str) -> list[str]:
        for theirs, ours in here.items():
            text = text.replace(theirs, ours)
        # Small, on one machine, and in the foreground, so that the test can end it.
        return [*shlex.split(text), "--block", "--num-cpus=1", "--object-store-memory=100000000"]

    temporary = f"--temp-dir=/tmp/wm-lab-{os.getpid()}"
    background([*line(head), temporary], environment(), "head.log")
    end = time.monotonic() + SECONDS

    def status() -> str:
        words = ["ray", "status", f"--address={address}"]
        return subprocess.run(words, env=environment(), capture_output=True, text=True, check=False).stdout

    while "1.0 CPU" not in status():
        assert time.monotonic() < end, (tmp_path / "head.log").read_text()
        time.sleep(1)
    background([*line(other), "--node-ip-address=127.0.0.3"], environment(), "other.log")
    while "2.0 CPU" not in status():
        assert time.monotonic() < end, (tmp_path / "other.log").read_text()
        time.sleep(1)

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", OTHER)
    words = ("pipeline", "tiny", "--run", tmp_path / "run", "--address", address)
    stranger = job(*words)
    assert stranger.wait() == 2, stranger.stderr
    assert "can't connect to the Ray cluster" in stranger.stderr
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    ours = job(*words)
    assert ours.wait() == 0, ours.stderr
    assert digests(tmp_path / "run") == digests(tiny.uri)


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment as in an allocation of two nodes, with stand-ins for srun and scontrol."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").write_text('#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    (programs / "scontrol").write_text(
        '#!/bin/bash\nif [ "$1" = requeue ]; then echo "$2" >> "$REQUEUED"; else echo "one"; echo "two"; fi\n'
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    found = environment(
        SLURM_JOB_ID=str(os.getpid()),
        SLURM_JOB_NODELIST="node[1-2]",
        SLURM_CPUS_PER_TASK="1",
        SLURM_SUBMIT_DIR=str(ROOT),
        REQUEUED=str(tmp_path / "requeued"),
    )
    return found | {"PATH": f"{programs}:{found['PATH']}"}


def test_a_slurm_job_stops_before_its_limit_and_continues_in_its_next_turn(
    tiny: Run, tmp_path: Path, slurm: dict[str, str], background: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    words = ["bash", str(SCRIPT), "pipeline", "tiny", "--run", str(run)]
    first = background(words, slurm, "first.log")
    end = time.monotonic() + SECONDS
    while not list(run.glob("evolve/*/checkpoints/step-*1-*")):
        assert first.poll() is None, (tmp_path / "first.log").read_text()
        assert time.monotonic() < end, (tmp_path / "first.log").read_text()
        time.sleep(0.05)
    first.send_signal(signal.SIGUSR1)  # as Slurm does, to the batch script only
    assert first.wait(120) == 0, (tmp_path / "first.log").read_text()
    assert (tmp_path / "requeued").read_text().split() == [slurm["SLURM_JOB_ID"]]
    assert "interrupted; completed work is kept" in (tmp_path / "first.log").read_text()
    assert "score" not in digests(run)
    assert not list(run.glob("lease/*"))

    second = background(words, slurm | {"SLURM_RESTART_COUNT": "1"}, "second.log")
    assert second.wait(SECONDS) == 0, (tmp_path / "second.log").read_text()
    log = (tmp_path / "second.log").read_text()
    assert "evolve resumes from generation" in log
    assert (tmp_path / "requeued").read_text().split() == [slurm["SLURM_JOB_ID"]]  # not once more
    assert digests(run) == digests(tiny.uri)


def test_a_mistake_is_not_requeued(tmp_path: Path, slurm: dict[str, str]) -> None:
    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(SCRIPT), *words]
        return subprocess.run(command, env=slurm | more, cwd=ROOT, capture_output=True, text=True, check=False)

    wrong = run("pipeline", "tiny", "--run", str(tmp_path / "run"), "--evolve.population", "2")
    assert wrong.returncode == 2, wrong.stderr
    assert "--evolve.population must be 4 or more" in wrong.stderr
    without = run("pipeline", "tiny", RAY_AUTH_TOKEN="", HOME=str(tmp_path))
    assert without.returncode == 2
    assert "ray get-auth-token --generate" in without.stderr
    assert run().returncode == 2
    assert not (tmp_path / "requeued").exists()
