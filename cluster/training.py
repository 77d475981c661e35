"""One long task, on a GPU or on the CPUs of one node; submitted again when its machine vanishes."""

import logging
import time
import traceback
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster import runtime
from cluster.workers import brief, portable
from wm.errors import Failure
from wm.pool import Task, set_threads

log = logging.getLogger(__name__)

AHEAD = 16  # reports that may wait for the driver before the task does
GRACE_SECONDS = 5.0  # after an interrupt, before it is killed
WAIT_SECONDS = 30.0  # for a place, before it is worth a line


@ray.remote(max_retries=0)
def _run(task: Task) -> Iterator[tuple[str, Any]]:
    """("report", report) ..., and at last ("error", (error, traceback)) if it came to that."""
    try:
        set_threads(task.threads)
        for report in task.run():
            yield "report", report
    except Exception as error:
        yield "error", (portable(error), traceback.format_exc())


def stream(task: Task, deaths: int) -> Iterator[Any]:
    """The task's reports. It finds its own way back after a crash, so some may come twice."""
    fruitless = lives = 0
    while True:
        lives += 1
        try:
            for report in _live(task):
                fruitless = 0
                yield report
            return
        except RayTaskError:
            raise
        except RayError as error:
            fruitless += 1
            if fruitless >= deaths or lives >= 10 * deaths:
                raise Failure(f"{task} was lost {lives} times; the last time: {brief(error)}") from error
            log.warning("the task was lost (%s): it starts again", brief(error))


def _live(task: Task) -> Iterator[Any]:
    """One submission, until it ends or its worker does."""
    generator: Any = _run.options(
        num_returns="streaming", _generator_backpressure_num_objects=AHEAD, **_place(task)
    ).remote(task)
    ended = False
    try:
        said = False
        while True:
            if not ray.wait([generator], timeout=WAIT_SECONDS)[0]:
                if not said and not _anywhere(task):
                    said = True
                    log.warning("no node has what the task needs (%s): waiting for one", task.device)
                continue
            said = True
            try:
                kind, answer = ray.get(next(generator))
            except (StopIteration, RayError) as error:
                ended = True
                if isinstance(error, StopIteration):
                    return
                raise
            if kind == "report":
                yield answer
            else:
                ended = True
                reason, trace = answer
                reason.add_note(trace)
                raise reason
    finally:
        if not ended:
            _stop(generator)


def _place(task: Task) -> dict[str, Any]:
    nodes, planned = runtime.nodes(), runtime.planned()
    if task.device == "cuda":
        roles = {node.role for node in nodes if node.gpus} | {kind.role for kind in planned if kind.gpus}
        where = {"label_selector": {runtime.ROLE: "train"}} if "train" in roles else {}
        return {"num_gpus": 1, "num_cpus": 1, **where}
    largest = max([*(node.cpus for node in nodes if not node.draining), *(kind.cpus for kind in planned)], default=1)
    return {"num_cpus": max(1, min(task.threads, largest))}


def _anywhere(task: Task) -> bool:
    return any(node.gpus if task.device == "cuda" else node.cpus for node in runtime.nodes())


def _stop(generator: Any) -> None:
    """Interrupt the task, as Ctrl-C would; kill it if that is not enough."""
    ray.cancel(generator)
    if not _over(generator):
        ray.cancel(generator, force=True)


def _over(generator: Any) -> bool:
    end = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < end:
        if ray.wait([generator], timeout=0.2)[0]:
            try:
                ray.get(next(generator))
            except (StopIteration, RayError):
                return True
    return False
