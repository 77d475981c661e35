"""Runs jobs: signals, exit codes, progress on stderr and a summary on stdout.

Exit codes: 0 success, 1 failure, 2 user error, 130 interrupted. Messages go to stderr. The last line on stdout is one
JSON object, so that scripts can chain jobs.
"""

import errno
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jobs.command_line import RunOptions, parse, typed_flags
from jobs.display import Display, show_cost
from jobs.sudden_end import announced
from wm.config.schema import Config
from wm.errors import Failure, UserError, described, is_external
from wm.pipeline import stage_function
from wm.pool import LocalPool, Pool, Progress, set_threads
from wm.runs.disk_check import DiskSpaceCheck
from wm.runs.lease import Lease, hold
from wm.runs.manifest import Manifest
from wm.runs.memory_space import check_machine
from wm.runs.run import Run, open_run, start_run
from wm.runs.stages import STAGES
from wm.runs.storage import Storage, open_storage
from wm.stages.references import check_references

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame prints a greeting on stdout

KEPT = "Completed work is kept; run the same command to resume."
Work = Callable[[Run, Pool], list[Manifest]]


def stage_job(
    name: str,
    doc: str | None,
    work: Work | None = None,
    section: str | None = None,
    count: Callable[[Config], int] = lambda config: 1,
    fallback: Config | None = None,
    words: Sequence[str] | None = None,
    more: Mapping[str, str] | None = None,
) -> None:
    """Run a job from the command line and exit with its code.

    work: the job itself (default: the stage of that name).
    section: the config section whose flags also work without its name (default: that of the stage).
    count: number of stages, for the progress display.
    fallback: config of a new run without a preset.
    words: the command line (default: sys.argv).
    more: the job's other flags, which are no longer in `words`, with their descriptions for --help.
    """

    def one_stage(run: Run, pool: Pool) -> list[Manifest]:
        return [stage_function(name)(run, pool)]

    def job() -> dict[str, Any]:
        signal.signal(signal.SIGTERM, interrupt)
        own = section or (name if name in STAGES else None)
        argv = sys.argv[1:] if words is None else words
        with typed_flags(argv, own):
            preset, options, config = parse(name, doc or "", argv, own, fallback, more)
            check_before(options, config, [name] if name in STAGES else list(STAGES))
            run = start_run(options.run, preset, config, options.base)
        start = time.monotonic()
        with Display(config.workers.log_seconds, count(config)) as display, ExitStack() as stack:
            if not options.local:
                stack.enter_context(announced())
            with hold(run.storage, options.take_over) as lease:
                pool = open_pool(options, config)
                run.tell = Listeners(run, lease, display, pool).tell
                run.cpus = pool.workers * max(1, config.threads)
                try:
                    manifests = (work or one_stage)(run, pool)
                finally:
                    pool.close()
        show_cost(manifests, run.uri)
        return summary(name, run, manifests, time.monotonic() - start)

    sys.exit(guard(job))


def check_before(options: RunOptions, config: Config, stages: Sequence[str]) -> None:
    """Raise a UserError for what would fail later, before anything is started or frozen."""
    config.check()
    check_machine(config, stages, cluster=not options.local and bool(options.address or os.environ.get("RAY_ADDRESS")))
    if open_run(options.run) is None:
        check_references(config)


class Listeners:
    """Passes progress to the lease, the disk space check, the display and the pool."""

    def __init__(self, run: Run, lease: Lease, display: Display, pool: Pool):
        self.disk = DiskSpaceCheck(run.config, run.storage)
        self.lease, self.display, self.pool = lease, display, pool

    def tell(self, progress: Progress) -> None:
        self.lease.check()
        self.disk.tell(progress)
        self.display.tell(progress)
        self.pool.tell(progress)


def open_pool(options: RunOptions, config: Config) -> Pool:
    set_threads(config.threads)
    pool: Pool
    if options.local:
        pool = LocalPool(config.workers.retries)
    else:
        from cluster.pool import RayPool
        from cluster.runtime import connect

        connect(options.address or "", num_cpus=config.workers.count)
        pool = RayPool(
            workers=config.workers.count,
            retries=config.workers.retries,
            unit_seconds=config.workers.unit_seconds,
            recycle_units=config.workers.recycle_units,
            gpu_seconds=config.workers.gpu_seconds,
        )
    signal.signal(signal.SIGTERM, interrupt)  # again, since Ray installs its own handler
    return pool


def summary(name: str, run: Run, manifests: Sequence[Manifest], seconds: float) -> dict[str, Any]:
    stages = {
        manifest.stage: {"extent": manifest.extent, "digest": manifest.digest, **manifest.metrics}
        for manifest in manifests
    }
    return {"job": name, "run": run.uri, "seconds": round(seconds, 1), "stages": stages}


def guard(job: Callable[[], dict[str, Any]]) -> int:
    """Run a job and return its exit code. Expected errors are printed as one line, bugs raise."""
    try:
        print(json.dumps(job()), flush=True)
        return 0
    except UserError as error:
        return _print(2, str(error))
    except Failure as failure:
        return _print(1, f"failed: {failure}\n{KEPT}")
    except Exception as error:
        if not is_external(error):
            raise
        return _print(1, f"failed: {described(error)}\n{KEPT}")
    except BrokenPipeError:  # the reader is gone: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        spec = sys.modules["__main__"].__spec__
        command = ["python", "-m", spec.name if spec else sys.argv[0], *sys.argv[1:]]
        return _print(130, f"interrupted; completed work is kept. Resume with: {shlex.join(command)}")


def destination(to: str | None, storage: Storage, key: str) -> tuple[Storage, str]:
    """Where to write a file: the path of --to, whose folder is made, or by default this key of the storage."""
    if to is None:
        return storage, key
    path = Path(to).expanduser()
    check_writable(path)
    return open_storage(str(path.parent.resolve())), path.name


def check_writable(path: Path) -> None:
    """Make the folder of a file that is written later, so that a long job does not fail at its end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(f"can't write {path} ({error.strerror}): choose another --to") from None


def exit_on_user_error(prepare: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for functions that run before a job: a UserError is printed and exits with code 2."""

    def guarded(*arguments: Any) -> Any:
        try:
            return prepare(*arguments)
        except UserError as error:
            sys.exit(_print(2, str(error)))

    return guarded


def _print(code: int, message: str) -> int:
    print(message, file=sys.stderr, flush=True)
    return code


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
