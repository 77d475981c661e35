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

from jobs.command_line import Where, parse
from jobs.display import Display
from wm.config import Config
from wm.mistakes import Failure, Mistake
from wm.pool import LocalPool, Pool, settle
from wm.run import Manifest, Run, start_run

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it greets on stdout

Stages = Callable[[Config, Run, Pool], list[Manifest]]


def stage_job(name: str, doc: str | None, stages: Stages, section: str | None = None, count: int = 1) -> None:
    """The whole life of a job that runs `count` stages."""

    def job() -> dict[str, Any]:
        signal.signal(signal.SIGTERM, _interrupt)
        preset, where, config = parse(name, doc or "", sys.argv[1:], section)
        run = start_run(where.run, preset, config, where.base)
        start = time.monotonic()
        with Display(config.workers.log_seconds, count) as display:
            run.tell = display.tell
            pool = open_pool(where, config)
            try:
                manifests = stages(config, run, pool)
            finally:
                pool.close()
        return summary(name, run, manifests, time.monotonic() - start)

    sys.exit(guard(job))


def open_pool(where: Where, config: Config) -> Pool:
    settle(config.threads)
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
    except Mistake as mistake:
        return _say(2, str(mistake))
    except Failure as failure:
        return _say(1, f"failed: {failure}\nWhat is complete is kept; the same command goes on from there.")
    except KeyboardInterrupt:
        spec = sys.modules["__main__"].__spec__
        command = ["python", "-m", spec.name if spec else sys.argv[0], *sys.argv[1:]]
        return _say(130, f"interrupted; what is complete is kept. Go on with: {shlex.join(command)}")


def _say(code: int, message: str) -> int:
    print(message, file=sys.stderr, flush=True)
    return code


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
