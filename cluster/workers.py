"""The process that does units where there is a CPU, and the driver's side of it."""

import logging
import os
import pickle
import time
import traceback
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
from wm.pool import Work, set_threads

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # how often the cluster is asked for its nodes
LINGER_SECONDS = 60.0  # for which a worker that is asked for, but has no machine yet, is still asked for
SILENCE_SECONDS = 15.0  # without a single worker, before it is worth a line


def portable(error: Exception) -> Exception:
    """The error itself if it survives the journey to the driver, else a Failure that says the same."""
    try:
        pickle.loads(cloudpickle.dumps(error))
    except Exception:
        return Failure(f"{type(error).__name__}: {error}")
    return error.with_traceback(None)


def brief(error: BaseException) -> str:
    """What happened, without the page of advice that Ray adds."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().split(". ")[0]


class Worker:
    """Builds the work once and does one unit at a time. Every retry is the driver's decision."""

    def __init__(self, work: Work):
        self.work = work
        self.do_unit: Callable[[Any], Any] | None = None
        self.metrics = WorkerMetrics()

    def hello(self) -> tuple[str, int]:
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def build(self) -> None:
        """Ahead of the first unit, so that none seems slow for it. If it fails, the first attempt will tell."""
        try:
            self._prepare()
        except Exception:
            self.do_unit = None

    def do(self, unit: Any) -> tuple[str, Any, float]:
        """("done", result, seconds), ("failed", traceback, seconds) or ("stop", error, seconds)."""
        start = time.perf_counter()
        try:
            kind, answer = "done", self._prepare()(unit)
        except (UserError, Failure) as error:
            kind, answer = "stop", portable(error)
        except Exception:
            self.do_unit = None  # whatever broke may have broken what was built, too
            kind, answer = "failed", traceback.format_exc()
        seconds = time.perf_counter() - start
        self.metrics.did(kind, seconds)
        return kind, answer, seconds

    def _prepare(self) -> Callable[[Any], Any]:
        if self.do_unit is None:
            set_threads(self.work.threads)
            self.do_unit = self.work.build()
        return self.do_unit


_Actor: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Worker)


@dataclass(eq=False)
class WorkItem:
    """A unit on its way: who answers first has done it."""

    unit: Any
    done: bool = False
    copies: int = 0  # attempts under way
    tries: int = 0  # attempts that raised
    deaths: int = 0  # workers that died of it, or fell silent over it
    hangs: int = 0


@dataclass(eq=False)
class Call:
    """One call of a worker; `item` is None for those that get it ready."""

    worker: "WorkerHandle"
    kind: str  # hello, build, do
    item: WorkItem | None
    sent: float


@dataclass(eq=False)
class WorkerHandle:
    """A worker as the driver sees it. It answers its calls in order, so it is busy with the first one."""

    actor: ActorHandle
    labelled: bool = False  # asked for a node with our label
    node: str = ""  # where it is; nowhere yet while Ray looks for room
    pid: int = 0
    ready: bool = False  # set by Staff.prepare and Staff.prepared
    leaving: bool = False  # gets no more units; set by Staff.let_go
    drained: bool = False  # and its node will be gone soon
    units: int = 0
    since: float = 0.0  # when it began with the first of its calls
    calls: deque[Call] = field(default_factory=deque)


class WorkerGroup:
    """As many workers as the cluster has room for and the units need, adapting as nodes come and go."""

    def __init__(self, work: Work, limit: int, options: dict[str, Any], stats: Stats, gpu: bool = False):
        self.work = ray.put(work)  # once, however many workers there will be
        self.gpu = gpu  # a worker takes a GPU; its CPU is left to those who need one
        if gpu:
            options = {**options, "num_gpus": 1, "num_cpus": 0}
        self.limit, self.options, self.stats = limit, options, stats
        self.workers: set[WorkerHandle] = set()
        self.leaving: set[WorkerHandle] = set()
        self._able: list[WorkerHandle] | None = None  # looked at for every answer, so not gathered anew each time
        self.calls: dict[ray.ObjectRef, Call] = {}  # everything not answered yet
        self.room = 1  # workers that the cluster has room for
        self.labelled = False
        self.wanted, self.wanted_until = 0, 0.0  # the most that was needed lately
        self.next_poll, self.said = 0.0, time.monotonic()

    @property
    def able(self) -> list[WorkerHandle]:
        """Those that may be given units."""
        if self._able is None:
            self._able = [worker for worker in self.workers if worker.ready and not worker.leaving]
        return self._able

    def fit(self, needed: int) -> None:
        """Look at the cluster now and then; hire up to the need; let go of who should leave and is free."""
        now = time.monotonic()
        if now >= self.next_poll:
            self._poll(now)
        if needed >= self.wanted or now >= self.wanted_until:
            self.wanted, self.wanted_until = needed, now + LINGER_SECONDS
        staying = len(self.workers) - len(self.leaving)
        for _ in range(min(self.room, needed) - staying):
            self._hire()
        self._ask_for_less(staying - self.wanted)
        for worker in [worker for worker in self.leaving if not worker.calls]:
            self.dismiss(worker)
        self.stats.workers = len(self.able) + sum(worker.ready for worker in self.leaving)
        if self.stats.workers:
            self.said = now
        elif now - self.said > SILENCE_SECONDS:
            self.said = now
            log.warning("no worker yet: waiting for %d, the cluster has room for %d", needed, self.room)

    def call(self, worker: WorkerHandle, kind: str, item: WorkItem | None = None) -> None:
        method = getattr(worker.actor, kind)
        call = Call(worker, kind, item, time.monotonic())
        self.calls[method.remote() if item is None else method.remote(item.unit)] = call
        if not worker.calls:
            worker.since = call.sent
        worker.calls.append(call)
        if item:
            item.copies += 1

    def answered(self, ref: ray.ObjectRef) -> Call:
        call = self.calls.pop(ref)
        call.worker.calls.remove(call)
        call.worker.since = time.monotonic()
        if call.item:
            call.item.copies -= 1
        return call

    def drop_calls(self, worker: WorkerHandle) -> list[WorkItem]:
        """Expect nothing more of what it was given: the items."""
        for ref in [ref for ref, call in self.calls.items() if call.worker is worker]:
            del self.calls[ref]
        items = [call.item for call in worker.calls if call.item]
        worker.calls.clear()
        for item in items:
            item.copies -= 1
        return items

    def prepare(self, worker: WorkerHandle) -> None:
        """Say hello and have it build: ready when both are answered."""
        worker.ready, self._able = False, None
        self.call(worker, "hello")
        self.call(worker, "build")

    def prepared(self, worker: WorkerHandle) -> None:
        worker.ready, self._able = True, None

    def let_go(self, worker: WorkerHandle) -> None:
        """No more units: it is dismissed when it has answered its last call."""
        worker.leaving, self._able = True, None
        self.leaving.add(worker)

    def dismiss(self, worker: WorkerHandle) -> list[WorkItem]:
        ray.kill(worker.actor)
        self.workers.discard(worker)
        self.leaving.discard(worker)
        self._able = None
        return self.drop_calls(worker)

    def close(self) -> None:
        while self.workers:
            self.dismiss(next(iter(self.workers)))
        self.stats.workers = 0

    def recycle(self, worker: WorkerHandle) -> None:
        """Let it go after its last call, unless many others are away at the moment."""
        away = len(self.workers) - len(self.able)
        if not worker.leaving and away <= len(self.workers) // 8:
            self.let_go(worker)
            self.stats.recycled += 1

    def _hire(self) -> None:
        # A row a unit in the dashboard would cost a fifth of the dispatch and drown everything else there.
        options = {"enable_task_events": False, **self.options}
        if self.labelled:
            options.setdefault("label_selector", {runtime.ROLE: "train" if self.gpu else "rollout"})
        worker = WorkerHandle(_Actor.options(**options).remote(self.work), labelled=self.labelled)
        self.workers.add(worker)
        self.stats.hired += 1
        self.prepare(worker)

    def _ask_for_less(self, surplus: int) -> None:
        """The autoscaler starts a machine for whoever waits for one: there should be work for it when it comes."""
        if surplus > 0:
            for worker in [worker for worker in self.workers if not worker.node][:surplus]:
                self.dismiss(worker)

    def _poll(self, now: float) -> None:
        alive = runtime.nodes()
        took = time.monotonic() - now
        self.next_poll = now + max(POLL_SECONDS, 30 * took)  # a few per cent of our time at most
        if self.gpu:
            places, role = [node for node in alive if node.gpus and not node.draining], "train"
            planned, there = runtime.planned_gpus(), sum(node.gpus for node in places)
        else:
            places, role = runtime.rollout_nodes(alive), "rollout"
            planned, there = runtime.planned_cpus(), sum(node.cpus for node in places)
        self.labelled = planned > 0 or any(node.role == role for node in places)
        self.room = self.limit or max(1, planned, there)
        leaving = {node.id for node in alive if node.draining}
        for worker in self.workers:
            if worker.node in leaving and not worker.drained:
                log.info("node %s is leaving: no new units for its worker", worker.node[:8])
                self.let_go(worker)
                worker.drained = True
        surplus = len(self.workers) - len(self.leaving) - self.room
        for worker in [worker for worker in self.workers if not worker.node]:
            if surplus > 0 or worker.labelled != self.labelled:  # nobody will make room for it where it asked
                self.dismiss(worker)
                surplus -= 1
