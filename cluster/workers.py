"""The Ray actor that runs work units, and the driver's group of these actors."""

import logging
import os
import pickle
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import cloudpickle
from ray.actor import ActorHandle

from cluster import runtime
from cluster.metrics import Stats, WorkerMetrics
from wm.errors import Failure, UserError
from wm.pool import Work, explained, set_threads

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # between two looks at the cluster's nodes
DOWNSCALE_DELAY_SECONDS = 60.0  # before unneeded requests for workers without a node are withdrawn
NO_WORKER_WARNING_SECONDS = 15.0


def portable(error: Exception) -> Exception:
    """The error itself if it can be pickled, else a Failure with the same message."""
    try:
        pickle.loads(cloudpickle.dumps(error))
    except Exception:
        return Failure(f"{type(error).__name__}: {error}")
    return error.with_traceback(None)


def brief(error: BaseException) -> str:
    """The error message without the advice that Ray adds to it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().split(". ")[0]


class Worker:
    """Builds the work once and runs one unit at a time. The driver decides about retries."""

    def __init__(self, work: Work):
        self.work = work
        self.run_unit: Callable[[Any], Any] | None = None
        self.metrics = WorkerMetrics()

    def identify(self) -> tuple[str, int]:
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def build(self) -> None:
        """Build before the first unit, so that its time does not include the build.

        Errors are ignored here: the first unit builds again and reports them.
        """
        try:
            self._prepare()
        except Exception:
            self.run_unit = None

    def run(self, unit: Any) -> tuple[str, Any, float]:
        """("done", result, seconds), ("failed", traceback, seconds) or ("stop", error, seconds)."""
        start = time.perf_counter()
        try:
            kind, answer = "done", self._prepare()(unit)
        except (UserError, Failure) as error:
            kind, answer = "stop", portable(error)
        except Exception as error:
            self.run_unit = None  # the error may have left the built objects in a bad state
            kind, answer = "failed", explained(error)
        seconds = time.perf_counter() - start
        self.metrics.record(kind, seconds)
        return kind, answer, seconds

    def _prepare(self) -> Callable[[Any], Any]:
        if self.run_unit is None:
            set_threads(self.work.threads)
            self.run_unit = self.work.build()
        return self.run_unit


_Actor: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Worker)


@dataclass(eq=False)
class WorkItem:
    """A unit of the current map. Several workers may run copies of it; the first result counts."""

    unit: Any
    done: bool = False
    copies: int = 0  # attempts in progress
    tries: int = 0  # attempts that raised
    deaths: int = 0  # workers that died or hung while they ran it
    hangs: int = 0


@dataclass(eq=False)
class Call:
    """A pending actor call. `item` is None for calls that prepare the worker."""

    worker: "WorkerHandle"
    kind: str  # identify, build, run
    item: WorkItem | None
    sent: float


@dataclass(eq=False)
class WorkerHandle:
    """The driver's view of a worker. Calls run in order, so a worker is always busy with the first one."""

    actor: ActorHandle
    labelled: bool = False  # requires a node with the label of its role
    node: str = ""  # empty until Ray has placed it
    pid: int = 0
    ready: bool = False  # set by WorkerGroup.prepare and WorkerGroup.mark_ready
    retiring: bool = False  # gets no more units; set by WorkerGroup.retire
    draining: bool = False  # retiring because its node is about to go
    units_run: int = 0
    busy_since: float = 0.0  # when it started the first of its calls
    calls: deque[Call] = field(default_factory=deque)


class WorkerGroup:
    """Keeps as many workers as the units need and the cluster can hold, as nodes come and go."""

    def __init__(self, work: Work, limit: int, options: dict[str, Any], stats: Stats, gpu: bool = False):
        self.work = ray.put(work)  # stored once for all workers
        self.gpu = gpu
        if gpu:
            options = {**options, "num_gpus": 1, "num_cpus": 0}  # leaves the CPUs to CPU workers
        self.limit, self.options, self.stats = limit, options, stats
        self.workers: set[WorkerHandle] = set()
        self.retiring: set[WorkerHandle] = set()
        self._available: list[WorkerHandle] | None = None  # cached: read for every result
        self.calls: dict[ray.ObjectRef, Call] = {}  # pending
        self.capacity = 1  # number of workers that the cluster can hold
        self.labelled = False
        self.target, self.target_until = 0, 0.0  # largest number of workers needed recently
        self.next_poll = 0.0
        self.expect_workers()

    @property
    def available(self) -> list[WorkerHandle]:
        """Workers that accept units."""
        if self._available is None:
            self._available = [worker for worker in self.workers if worker.ready and not worker.retiring]
        return self._available

    def expect_workers(self) -> None:
        """From now on it is worth a warning if no worker is ready."""
        self.last_ready = self.last_warned = time.monotonic()

    def scale_to(self, needed: int) -> None:
        """Start workers up to `needed`, withdraw requests that are no longer needed, remove idle retiring workers."""
        now = time.monotonic()
        if now >= self.next_poll:
            self._poll(now)
        if needed >= self.target or now >= self.target_until:
            self.target, self.target_until = needed, now + DOWNSCALE_DELAY_SECONDS
        staying = len(self.workers) - len(self.retiring)
        for _ in range(min(self.capacity, needed) - staying):
            self._start_worker()
        self._withdraw_requests(staying - self.target)
        for worker in [worker for worker in self.retiring if not worker.calls]:
            self.remove(worker)
        self.stats.workers = len(self.available) + sum(worker.ready for worker in self.retiring)
        if self.stats.workers:
            self.last_ready = self.last_warned = now
        elif now - self.last_warned > NO_WORKER_WARNING_SECONDS:
            self.last_warned = now
            log.warning(
                "no worker is ready after %.0f s: %d needed, the cluster has room for %d; %s",
                now - self.last_ready,
                needed,
                self.capacity,
                runtime.why_workers_wait(),
            )

    def call(self, worker: WorkerHandle, kind: str, item: WorkItem | None = None) -> None:
        method = getattr(worker.actor, kind)
        call = Call(worker, kind, item, time.monotonic())
        self.calls[method.remote() if item is None else method.remote(item.unit)] = call
        if not worker.calls:
            worker.busy_since = call.sent
        worker.calls.append(call)
        if item:
            item.copies += 1

    def answered(self, ref: ray.ObjectRef) -> Call:
        call = self.calls.pop(ref)
        call.worker.calls.remove(call)
        call.worker.busy_since = time.monotonic()
        if call.item:
            call.item.copies -= 1
        return call

    def drop_calls(self, worker: WorkerHandle) -> list[WorkItem]:
        """Forget the worker's pending calls and return their items."""
        for ref in [ref for ref, call in self.calls.items() if call.worker is worker]:
            del self.calls[ref]
        items = [call.item for call in worker.calls if call.item]
        worker.calls.clear()
        for item in items:
            item.copies -= 1
        return items

    def prepare(self, worker: WorkerHandle) -> None:
        """Start its preparation: the worker is ready once both calls have returned."""
        worker.ready, self._available = False, None
        self.call(worker, "identify")
        self.call(worker, "build")

    def mark_ready(self, worker: WorkerHandle) -> None:
        worker.ready, self._available = True, None

    def retire(self, worker: WorkerHandle) -> None:
        """Send it no more units; it is removed after its last pending call."""
        worker.retiring, self._available = True, None
        self.retiring.add(worker)

    def remove(self, worker: WorkerHandle) -> list[WorkItem]:
        """Kill the worker and return the items that it had."""
        ray.kill(worker.actor)
        self.workers.discard(worker)
        self.retiring.discard(worker)
        self._available = None
        return self.drop_calls(worker)

    def close(self) -> None:
        while self.workers:
            self.remove(next(iter(self.workers)))
        self.stats.workers = 0

    def recycle(self, worker: WorkerHandle) -> None:
        """Retire the worker, unless more than an eighth of the workers are unavailable already."""
        unavailable = len(self.workers) - len(self.available)
        if not worker.retiring and unavailable <= len(self.workers) // 8:
            self.retire(worker)
            self.stats.recycled += 1

    def _start_worker(self) -> None:
        # Task events would add a fifth to the dispatch time, and flood the dashboard with one row per unit.
        options = {"enable_task_events": False, **self.options}
        if self.labelled:
            options.setdefault("label_selector", {runtime.ROLE: "train" if self.gpu else "rollout"})
        worker = WorkerHandle(_Actor.options(**options).remote(self.work), labelled=self.labelled)
        self.workers.add(worker)
        self.stats.started += 1
        self.prepare(worker)

    def _withdraw_requests(self, surplus: int) -> None:
        """Remove workers without a node: otherwise the autoscaler starts nodes for which no units are left."""
        if surplus > 0:
            for worker in [worker for worker in self.workers if not worker.node][:surplus]:
                self.remove(worker)

    def _poll(self, now: float) -> None:
        alive = runtime.nodes()
        took = time.monotonic() - now
        self.next_poll = now + max(POLL_SECONDS, 30 * took)  # at most a few percent of the driver's time
        if self.gpu:
            usable, role = [node for node in alive if node.gpus and not node.draining], "train"
            planned, present = runtime.planned_gpus(), sum(node.gpus for node in usable)
        else:
            usable, role = runtime.rollout_nodes(alive), "rollout"
            planned, present = runtime.planned_cpus(), sum(node.cpus for node in usable)
        self.labelled = planned > 0 or any(node.role == role for node in usable)
        self.capacity = self.limit or max(1, planned, present)
        draining = {node.id for node in alive if node.draining}
        for worker in self.workers:
            if worker.node in draining and not worker.draining:
                log.info("node %s is draining: its worker gets no new units", worker.node[:8])
                self.retire(worker)
                worker.draining = True
        surplus = len(self.workers) - len(self.retiring) - self.capacity
        for worker in [worker for worker in self.workers if not worker.node]:
            if surplus > 0 or worker.labelled != self.labelled:  # its request can't be met any more
                self.remove(worker)
                surplus -= 1
