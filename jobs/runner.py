"""How every job behaves: signals, exit codes, progress on stderr, the summary on stdout.

Exit codes: 0 done, 1 failed, 2 a user's mistake, 130 interrupted. Everything a person reads goes to
stderr; the last line on stdout is one JSON object, so that scripts can chain jobs.
"""

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from jobs.command_line import RunOptions, parse
from jobs.display import Display, show_spent
from wm.config.schema import Config
from wm.errors import Failure, UserError
from wm.experiments.disk_space import DiskSpaceCheck
from wm.pool import LocalPool, Pool, Progress, set_threads
from wm.runs.lease import Lease, hold
from wm.runs.run import Manifest, Run, start_run

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it greets on stdout

Stages = Callable[[Config, Run, Pool], list[Manifest]]


def stage_job(
    name: str,
    doc: str | None,
    stages: Stages,
    section: str | None = None,
    count: Callable[[Config], int] = lambda config: 1,
    fallback: Config | None = None,
    words: Sequence[str] | None = None,
) -> None:
    """The whole life of a job of so many (`count`) stages; `fallback` is the config of a new run without a preset.

    `words`, where they aren't what was typed.
    """

    def job() -> dict[str, Any]:
        signal.signal(signal.SIGTERM, _interrupt)
        preset, where, config = parse(name, doc or "", sys.argv[1:] if words is None else words, section, fallback)
        run = start_run(where.run, preset, config, where.base)
        start = time.monotonic()
        with Display(config.workers.log_seconds, count(config)) as display, hold(run.storage, where.take_over) as lease:
            pool = open_pool(where, config)
            run.tell = ProgressHub(run, config, lease, display, pool).tell
            run.cpus = pool.workers * max(1, config.threads)
            try:
                manifests = stages(config, run, pool)
            finally:
                pool.close()
        show_spent(manifests, run.uri)
        return summary(name, run, manifests, time.monotonic() - start)

    sys.exit(guard(job))


class ProgressHub:
    """What happens whenever a stage says how far it is."""

    def __init__(self, run: Run, config: Config, lease: Lease, display: Display, pool: Pool):
        self.lookout = DiskSpaceCheck(config, run.storage)
        self.lease, self.display, self.pool = lease, display, pool

    def tell(self, progress: Progress) -> None:
        self.lease.check()
        self.lookout.tell(progress)
        self.display.tell(progress)
        self.pool.tell(progress)


def open_pool(where: RunOptions, config: Config) -> Pool:
    set_threads(config.threads)
    pool: Pool
    if where.local:
        pool = LocalPool(config.workers.retries)
    else:
        from cluster.pool import RayPool
        from cluster.runtime import connect

        connect(where.address or "", num_cpus=config.workers.count)
        pool = RayPool(
            workers=config.workers.count,
            retries=config.workers.retries,
            unit_seconds=config.workers.unit_seconds,
            recycle_units=config.workers.recycle_units,
        )
    signal.signal(signal.SIGTERM, _interrupt)  # once more: Ray has installed its own
    return pool


def summary(name: str, run: Run, manifests: Sequence[Manifest], seconds: float) -> dict[str, Any]:
    stages = {
        manifest.stage: {"extent": manifest.extent, "digest": manifest.digest, **manifest.metrics}
        for manifest in manifests
    }
    return {"job": name, "run": run.uri, "seconds": round(seconds, 1), "stages": stages}


def guard(job: Callable[[], dict[str, Any]]) -> int:
    """Run it; whatever happens becomes an exit code and, where it is not our bug, one clear line."""
    try:
        print(json.dumps(job()), flush=True)
        return 0
    except UserError as mistake:
        return _say(2, str(mistake))
    except Failure as failure:
        return _say(1, f"failed: {failure}\nWhat is complete is kept; the same command goes on from there.")
    except BrokenPipeError:  # nobody reads on: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        spec = sys.modules["__main__"].__spec__
        command = ["python", "-m", spec.name if spec else sys.argv[0], *sys.argv[1:]]
        return _say(130, f"interrupted; what is complete is kept. Go on with: {shlex.join(command)}")


def exit_on_user_error(prepare: Callable[..., Any]) -> Callable[..., Any]:
    """For what comes before a job: a mistake ends it as it ends a job."""

    def careful(*arguments: Any) -> Any:
        try:
            return prepare(*arguments)
        except UserError as mistake:
            sys.exit(_say(2, str(mistake)))

    return careful


def _say(code: int, message: str) -> int:
    print(message, file=sys.stderr, flush=True)
    return code


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
