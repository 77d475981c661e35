"""Runs one long task on a GPU or on the CPUs of one node, and resubmits it if the node is lost."""

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
from wm.models.device import problem
from wm.pool import Task, set_threads

log = logging.getLogger(__name__)

MAX_UNREAD_REPORTS = 16  # the task blocks until the driver has read some
GRACE_SECONDS = 5.0  # between interrupting the task and killing it
NO_NODE_WARNING_SECONDS = 30.0
GPU_POLL_SECONDS = 2.0


# The process ends with its task (max_calls counts only here, not in options): idle, it would keep its CUDA context and
# the frames that it has on the GPU.
@ray.remote(max_retries=0, max_calls=1)
def _run(task: Task) -> Iterator[tuple[str, Any]]:
    """Yield ("report", report) for each report, and ("error", (error, traceback)) if the task raises."""
    try:
        set_threads(task.threads)
        for report in task.run():
            yield "report", report
    except Exception as error:
        yield "error", (portable(error), traceback.format_exc())


@ray.remote(max_retries=3, max_calls=1)
def _gpu_problem() -> str:
    return problem()


def missing_gpu(seconds: float) -> str:
    """Wait for a GPU that torch can use; the reason if there is none. Busy GPUs are waited for without a limit.

    A request of its own shows whether the autoscaler can start a node: it may lack the quota or the capacity.
    """
    answer = _gpu_problem.options(**_on_gpu()).remote()
    end, told = time.monotonic() + seconds, False
    while not ray.wait([answer], timeout=GPU_POLL_SECONDS)[0]:
        if any(node.gpus and not node.draining for node in runtime.nodes()):
            end = time.monotonic() + seconds
        elif time.monotonic() > end:
            ray.cancel(answer, force=True)
            return f"no node with a GPU has started within {seconds:.0f} s (--workers.gpu-seconds)"
        elif not told:
            told = True
            log.warning("waiting for a node with a GPU, for %.0f s at most", seconds)
    try:
        return str(ray.get(answer))
    except RayError as error:
        return f"the node with a GPU was lost ({brief(error)})"


def stream(task: Task, max_failures: int) -> Iterator[Any]:
    """Yield the task's reports. After a crash the task resumes from its own checkpoint, so some reports may repeat."""
    failures_in_a_row = submissions = 0
    while True:
        submissions += 1
        try:
            for report in _run_once(task):
                failures_in_a_row = 0
                yield report
            return
        except RayTaskError:
            raise
        except RayError as error:
            failures_in_a_row += 1
            if failures_in_a_row >= max_failures or submissions >= 10 * max_failures:
                raise Failure(f"{task} was lost {submissions} times; last error: {brief(error)}") from error
            log.warning("the task was lost (%s): resubmitting it", brief(error))


def _run_once(task: Task) -> Iterator[Any]:
    """Submit the task once and yield its reports."""
    generator: Any = _run.options(
        num_returns="streaming", _generator_backpressure_num_objects=MAX_UNREAD_REPORTS, **_place(task)
    ).remote(task)
    ended = False
    try:
        warned_or_started = False
        while True:
            if not ray.wait([generator], timeout=NO_NODE_WARNING_SECONDS)[0]:
                if not warned_or_started and not _any_node(task):
                    warned_or_started = True
                    log.warning("no node can run the task on %s: waiting for one", task.device)
                continue
            warned_or_started = True
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
    if task.device == "cuda":
        return _on_gpu()
    nodes, planned = runtime.nodes(), runtime.planned()
    largest = max([*(node.cpus for node in nodes if not node.draining), *(kind.cpus for kind in planned)], default=1)
    return {"num_cpus": max(1, min(task.threads, largest))}


def _on_gpu() -> dict[str, Any]:
    roles = {node.role for node in runtime.nodes() if node.gpus} | {
        kind.role for kind in runtime.planned() if kind.gpus
    }
    where = {"label_selector": {runtime.ROLE: "train"}} if "train" in roles else {}
    return {"num_gpus": 1, "num_cpus": 1, **where}


def _any_node(task: Task) -> bool:
    return any(node.gpus if task.device == "cuda" else node.cpus for node in runtime.nodes())


def _stop(generator: Any) -> None:
    """Interrupt the task as Ctrl-C does, and kill it if it does not stop."""
    ray.cancel(generator)
    if not _has_stopped(generator):
        ray.cancel(generator, force=True)


def _has_stopped(generator: Any) -> bool:
    end = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < end:
        if ray.wait([generator], timeout=0.2)[0]:
            try:
                ray.get(next(generator))
            except (StopIteration, RayError):
                return True
    return False
