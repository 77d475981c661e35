"""Runs jobs as separate processes.

A fork server imports the libraries once, which takes seconds, and forks a child for each job. Tests can kill the child.
"""

import atexit
import contextlib
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 500  # timeout, generous for busy machines

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["wm.report.run_page", "jobs.runner", "cluster.pool", "obstore.store"])


class Job:
    """A running `python -m jobs.NAME WORDS`."""

    def __init__(self, folder: Path, name: str, *words: Any):
        self.out, self.err = folder / "stdout", folder / "stderr"
        argv = [str(word) for word in words]
        files = (str(self.out), str(self.err))
        self.process = _processes.Process(target=_main, args=(f"jobs.{name}", argv, *files, dict(os.environ)))
        self.process.start()

    @property
    def running(self) -> bool:
        return self.process.is_alive()

    @property
    def stdout(self) -> str:
        return self.out.read_text()

    @property
    def stderr(self) -> str:
        return self.err.read_text()

    @property
    def summary(self) -> dict[str, Any]:
        """The last line of stdout."""
        return json.loads(self.stdout.splitlines()[-1])

    def wait(self) -> int:
        """Wait for the exit code; negative if a signal ended the job."""
        self.process.join(SECONDS)
        assert not self.running, f"still running:\n{self.stderr}"
        return self.process.exitcode

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def kill_when(self, ready: Callable[[], bool]) -> None:
        """Send SIGKILL as soon as `ready` returns True."""
        self.until(ready)
        self.send(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL

    def until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready` returns True."""
        end = time.monotonic() + SECONDS
        while not ready():
            assert self.running, f"the job ended first:\n{self.stderr}"
            assert time.monotonic() < end, f"timeout:\n{self.stderr}"
            time.sleep(0.005)


def type_in(module: str, *words: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE WORDS` to its end."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        argv = [str(word) for word in words]
        process = _processes.Process(target=_main, args=(module, argv, *map(str, files), dict(os.environ)))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            raise TimeoutError(files[1].read_text())
        return subprocess.CompletedProcess(argv, process.exitcode, *(file.read_text() for file in files))


def _reset_ray_authentication() -> None:
    """Let Ray read its authentication settings again, since it read them when the fork server imported it."""
    from ray._private.authentication_test_utils import reset_auth_token_state

    reset_auth_token_state()


def children_of(parent: int, command: bytes) -> list[int]:
    """The pids of this process's children that have this in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError):  # it has ended
                its_parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if its_parent == parent and command in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
    return found


def _main(module: str, argv: list[str], out: str, err: str, environment: dict[str, str]) -> None:
    for path, number in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(environment)
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # as importing jobs.runner does
    _reset_ray_authentication()
    os.chdir(ROOT)
    sys.argv = ["", *argv]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # processes of multiprocessing skip exit handlers


def beside_a_run(run: str, folder: Path, code: str, *words: Any) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder in which a copy of this run is runs/demo."""
    shutil.copytree(run, folder / "runs" / "demo")
    command, env = [sys.executable, "-c", code, *map(str, words)], os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
