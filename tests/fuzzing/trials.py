"""Runs a job in this process, with its output captured and its time limited."""

import contextlib
import faulthandler
import io
import json
import logging
import os
import runpy
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.display import Display

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT = 300.0  # seconds until a job counts as hung, on a busy machine
PATIENCE = 15.0  # seconds from the first progress report to the one at which a job is interrupted


@dataclass
class Outcome:
    """How a job ended. `trace` is a traceback; `hung` means that it said nothing until the limit."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    trace: str = ""
    hung: bool = False

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def message(self) -> list[str]:
        """The lines of stderr without those of the log, which begin with the time."""
        return [line for line in self.stderr.splitlines() if line and not line[:8].replace(":", "").isdigit()]

    def broken_rule(self, lines: int = 2) -> str:
        """What the outcome violates, or "". A message may have this many lines."""
        if self.trace or "Traceback (most recent call last)" in self.stderr:
            return "traceback"
        if self.hung:
            return "hang"
        if self.code not in (0, 1, 2, 130):
            return f"exit code {self.code}"
        if self.code in (1, 2) and not 0 < len(self.message) <= lines:
            return f"{len(self.message)} lines"
        return ""


class OutOfTime(BaseException):
    """Raised in the job when its time is over."""


def run_job(name: str, *words: Any, limit: float = LIMIT, interrupt_at: int = 0) -> Outcome:
    """Run `python -m jobs.NAME WORDS` here. With `interrupt_at`, Ctrl-C is pressed at this progress report."""
    argv = [str(word) for word in words]
    out, err = io.StringIO(), io.StringIO()
    code, trace, hung, began = 0, "", False, time.monotonic()
    with _as_a_process(argv, out, err, limit), _interrupted(interrupt_at):
        try:
            runpy.run_module(f"jobs.{name}", run_name="__main__", alter_sys=True)
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 0 if exit.code is None else 1
        except OutOfTime:
            hung = True
        except BaseException:
            code, trace = 1, traceback.format_exc()
    return Outcome(code, out.getvalue(), err.getvalue(), time.monotonic() - began, trace, hung)


@contextlib.contextmanager
def _as_a_process(argv: list[str], out: io.StringIO, err: io.StringIO, limit: float) -> Iterator[None]:
    """Give the job arguments, streams, signals and logging of its own, and take them back."""

    def over(*_: Any) -> None:
        raise OutOfTime

    before = sys.argv, signal.getsignal(signal.SIGTERM), logging.root.handlers[:], logging.root.level, Path.cwd()
    handler = signal.signal(signal.SIGALRM, over)
    sys.argv = ["", *argv]
    # If C code hangs, no Python code runs: then the whole process ends with a traceback.
    faulthandler.dump_traceback_later(2 * limit, exit=True, file=sys.__stderr__)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, handler)
        sys.argv = before[0]
        signal.signal(signal.SIGTERM, before[1])
        logging.root.handlers[:], logging.root.level = before[2], before[3]
        os.chdir(before[4])


@contextlib.contextmanager
def _interrupted(at: int) -> Iterator[None]:
    """Press Ctrl-C at the progress report with this number."""
    tell: Callable[..., None] = Display.tell
    count = 0

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def counting(self: Any, progress: Any) -> None:
        nonlocal count
        tell(self, progress)
        count += 1
        if at and count >= at:
            interrupt()
        if at and count == 1:  # it works, so it does not hang
            signal.signal(signal.SIGALRM, interrupt)
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    Display.tell = counting  # type: ignore[method-assign]
    try:
        yield
    finally:
        Display.tell = tell  # type: ignore[method-assign]
