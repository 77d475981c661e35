"""RayPool: units on the workers of a cluster, any of which may be slow, hang or vanish at any moment."""

import logging
import time
from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    WorkerCrashedError,
)

from cluster import runtime, training
from cluster.metrics import DriverMetrics, Stats
from cluster.workers import Call, WorkerGroup, WorkItem, brief
from wm.errors import Failure
from wm.pool import Crew, Pool, Progress, Task, UnitFailed, Work

log = logging.getLogger(__name__)

QUEUE_SECONDS = 0.05  # work that waits at a worker, so that none waits for the driver: nothing for longer units
QUEUE = 8  # and no more calls than this
SLOW = 2.0  # times the median: a second worker may try
SLOW_SECONDS = 0.5  # but not for less than this
SILENT = 10.0  # times the median: the worker hangs
START_SECONDS = 120.0  # for a worker to start and build the work; twice as long each time in a row that none did
GONE = (RayActorError, WorkerCrashedError, OutOfMemoryError)  # said of the worker; others, of one result
GET_SECONDS = 60.0  # a result that was announced but can't be fetched is lost


class RayPool(Pool):
    """Crews of Ray actors, a CPU or a GPU each. `runtime.connect` comes first."""

    def __init__(
        self,
        workers: int = 0,
        retries: int = 3,
        unit_seconds: float = 1800.0,
        silent_seconds: float = 30.0,
        recycle_units: int = 0,
        deaths: int = 8,
        memory: int = 0,
        label_selector: dict[str, str] | None = None,
        planned_gpus: int = 0,
    ):
        """
        workers: how many at most; 0 is one for every CPU that the cluster has or, where it scales itself, may have:
            as many of them are asked for as there are units to do. GPUs are not counted among them.
        retries: attempts that may raise before a unit fails the job.
        unit_seconds: a worker that is longer over one unit hangs, whatever the others take.
        silent_seconds: and so does one that takes longer than this and 10 times the median.
        recycle_units: a worker is replaced after so many units (environments leak); 0 is never.
        deaths: workers that one unit may take with it before it fails the job.
        memory: bytes asked for each worker, so that no node takes more than it can hold.
        label_selector: nodes for the workers; by default those labelled wm.io/role=rollout, if there are any.
        planned_gpus: those of nodes that the autoscaler starts when they are asked for.
        """
        self.planned_gpus = planned_gpus
        self.limit, self.retries, self.deaths = workers, retries, deaths
        self.unit_seconds, self.silent_seconds = unit_seconds, silent_seconds
        self.recycle_units = recycle_units
        self.options: dict[str, Any] = {"memory": memory} if memory else {}
        if label_selector is not None:
            self.options["label_selector"] = label_selector
        self.stats, self.metrics = Stats(), DriverMetrics()
        self.open: list[_Crew] = []

    @property
    def workers(self) -> int:
        return self.limit or max(1, sum(node.cpus for node in runtime.rollout_nodes(runtime.nodes())))

    @contextmanager
    def crew(self, work: Work, gpu: bool = False) -> Iterator[Crew]:
        crew = _Crew(self, work, gpu)
        self.open.append(crew)
        try:
            yield crew
        finally:
            self.open.remove(crew)
            crew.group.close()

    @property
    def gpus(self) -> int:
        return max(self.planned_gpus, runtime.planned_gpus(), sum(node.gpus for node in runtime.nodes()))

    def stream(self, task: Task) -> Iterator[Any]:
        return training.stream(task, self.deaths)

    def tell(self, progress: Progress) -> None:
        self.metrics.progress(progress)

    def close(self) -> None:
        for crew in self.open:
            crew.group.close()


class _Crew:
    """The dispatch: units are drawn as there is room, given to whoever is free; the first answer counts."""

    def __init__(self, pool: RayPool, work: Work, gpu: bool):
        self.pool, self.stats = pool, pool.stats
        self.group = WorkerGroup(work, 0 if gpu else pool.limit, pool.options, pool.stats, gpu)
        self.items: set[WorkItem] = set()  # of this map, not answered yet
        self.waiting: deque[WorkItem] = deque()  # those that no worker has
        self.times: list[float] = []  # of this map's units, sorted
        self.median: float | None = None  # of this map or, until there are some, the one before
        self.failure: Exception | None = None
        self.stillborn = 0  # workers that died before they were ready, in a row
        self.unstarted = 0  # those that were given up for not getting ready, in a row
        self.next_look = 0.0

    def map(self, units: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        assert not self.items, "a crew does one map at a time"
        source = iter(units)
        self.times, self.failure = [], None
        answers: list[tuple[Any, Any]] = []
        try:
            while True:
                self._draw(source)
                self.group.fit(len(self.items))
                self._give()
                yield from answers  # while the workers have something to do
                if not self.items:
                    return
                answers = self._gather()
                if self.failure:
                    yield from answers
                    raise self.failure
                self._look_after()
        finally:
            for item in self.items:
                item.done = True  # who is still busy with one is not listened to
            self.items.clear()
            self.waiting.clear()

    def _draw(self, source: Iterator[Any]) -> None:
        most = max(len(self.group.able) * self._depth(), self.group.room)
        while len(self.items) < most:
            try:
                item = WorkItem(next(source))
            except StopIteration:
                return
            self.items.add(item)
            self.waiting.append(item)

    def _depth(self) -> int:
        """Calls that a worker may have: more than one only if units are about as short as the way to the driver."""
        return 1 if self.median is None else 1 + min(QUEUE - 1, int(QUEUE_SECONDS / max(self.median, 1e-6)))

    def _give(self) -> None:
        """The idle first; then, of short units, a second one each and so on."""
        depth = self._depth()
        free = [worker for worker in self.group.able if len(worker.calls) < depth] if self.waiting else []
        for load in range(depth):
            for worker in [worker for worker in free if len(worker.calls) == load][: len(self.waiting)]:
                self.group.call(worker, "do", self.waiting.popleft())
        if not self.waiting:
            self._give_again()

    def _give_again(self) -> None:
        """Idle workers may try what another is slow with, or won't finish since its node leaves."""
        idle = [worker for worker in self.group.able if not worker.calls]
        if not idle:
            return
        now, slow = time.monotonic(), max(SLOW * (self.median or float("inf")), SLOW_SECONDS)
        late = [
            call
            for call in self.group.calls.values()
            if call.item
            and not call.item.done
            and call.item.copies == 1
            and (call.worker.drained or (self.times and now - self._began(call) > slow))
        ]
        for worker, call in zip(idle, sorted(late, key=self._began), strict=False):
            assert call.item
            log.info("%s is slow: given to another worker, too", call.item.unit)
            self.stats.reissued += 1
            self.group.call(worker, "do", call.item)

    @staticmethod
    def _began(call: Call) -> float:
        return call.worker.since if call.worker.calls[0] is call else call.sent

    def _gather(self) -> list[tuple[Any, Any]]:
        """Wait for an answer, a little; take all there are."""
        refs = list(self.group.calls)
        if not refs:
            time.sleep(0.1)
            return []
        idle = any(not worker.calls for worker in self.group.able)
        ready, _ = ray.wait(refs, timeout=0.1 if idle else min(1.0, self.pool.silent_seconds / 4))
        if ready and len(refs) > 1:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        answers = []
        for ref, answer in zip(ready, _fetch(ready), strict=True):
            if ref not in self.group.calls:  # it went with its worker, a moment ago
                continue
            call = self.group.calls[ref]
            if isinstance(answer, GONE) or (isinstance(answer, Exception) and call.item is None):
                self._lost(call, answer)
                continue
            self.group.answered(ref)
            if call.item is None:
                self._prepared(call, answer)
            elif not call.item.done:
                answers += self._settle(call.item, answer)
            if call.item:
                call.worker.units += 1
                if self.pool.recycle_units and call.worker.units >= self.pool.recycle_units:
                    self.group.recycle(call.worker)
        if self.times:
            self.median = self.times[len(self.times) // 2]
        return answers

    def _prepared(self, call: Call, answer: Any) -> None:
        if call.kind == "hello":
            call.worker.node, call.worker.pid = answer
        else:
            self.group.prepared(call.worker)
            self.stillborn = self.unstarted = 0

    def _settle(self, item: WorkItem, answer: Any) -> list[tuple[Any, Any]]:
        """What a unit came to: its result, another try, or the end."""
        if isinstance(answer, ObjectLostError | GetTimeoutError):  # its node went after it had answered
            self._requeue([item])
            self._blame(item, f"the last time: {brief(answer)}")
            return []
        value: Any
        kind, value, seconds = ("failed", str(answer), 0.0) if isinstance(answer, Exception) else answer
        if kind == "done":
            item.done = True
            self.items.discard(item)
            self.stats.units += 1
            insort(self.times, seconds)
            return [(item.unit, value)]
        if kind == "stop":
            self._fail(value)
            return []
        item.tries += 1
        if item.tries >= self.pool.retries:
            self._fail(UnitFailed(item.unit, item.tries, value))
        else:
            log.warning("%s failed, trying again:\n%s", item.unit, value)
            self._back(item)
        return []

    def _back(self, item: WorkItem) -> None:
        if not item.done and not item.copies:
            self.waiting.appendleft(item)

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error

    def _lost(self, call: Call, error: Exception) -> None:
        """The worker is gone, or can't be reached: what it had goes back into the queue."""
        worker = call.worker
        first = worker.calls[0]
        said = str(error)  # nothing else tells a lost node from a lost process
        node = "its node has died" in said or "never ran" in said or getattr(error, "preempted", False)
        if isinstance(error, ActorUnavailableError):
            items = self.group.drop_calls(worker)
            self.group.prepare(worker)
        else:
            log.warning("lost worker %d: %s", worker.pid, brief(error))
            self.stats.died += 1
            items = self.group.dismiss(worker)
        self._requeue(items)
        if node or worker.drained:
            return
        if first.item:
            self._blame(first.item, f"the last time: {brief(error)}")
        elif not worker.ready:
            self.stillborn += 1
            if self.stillborn >= self.pool.deaths:
                self._fail(Failure(f"{self.stillborn} workers died before they were ready: {brief(error)}"))

    def _requeue(self, items: list[WorkItem]) -> None:
        for item in reversed(items):
            if not item.done and not item.copies:
                self.stats.requeued += 1
                self._back(item)

    def _blame(self, item: WorkItem, why: str) -> None:
        item.deaths += 1
        if item.deaths >= self.pool.deaths and not item.done:
            self._fail(Failure(f"{item.unit} ended {item.deaths} workers (out of memory? a crash?); {why}"))

    def _look_after(self) -> None:
        """A worker that is silent for far too long is killed."""
        now = time.monotonic()
        if now < self.next_look:
            return
        self.next_look = now + min(1.0, self.pool.silent_seconds / 4)
        self.pool.metrics.crew(self.stats, len(self.waiting), len(self.items) - len(self.waiting))
        unstarted = self.unstarted
        for worker in [worker for worker in self.group.workers if worker.calls]:
            item = worker.calls[0].item
            silence, patience = now - worker.since, self._patience(item)
            if silence < patience:
                continue
            self._requeue(self.group.dismiss(worker))
            if not item:  # it hangs; or there is no machine for it yet, and asking again does no harm
                log.warning("a worker has not started in %.0f s: another is asked for", silence)
                self.unstarted = unstarted + 1
                continue
            log.warning("worker %d is silent for %.0f s over %s: killed", worker.pid, silence, item.unit)
            self.stats.hung += 1
            item.hangs += 1
            self._blame(item, f"the last one was silent for {silence:.0f} s")

    def _patience(self, item: WorkItem | None) -> float:
        """Longer each time, so that a unit which is only slow gets done in the end."""
        if item is None:
            return START_SECONDS * 2 ** min(self.unstarted, 6)
        if self.median is None:
            return self.pool.unit_seconds
        silent = max(self.pool.silent_seconds, SILENT * self.median)
        return min(self.pool.unit_seconds, silent * 4**item.hangs)


def _fetch(refs: list[ray.ObjectRef]) -> list[Any]:
    """Results, or the errors in their place: all at once if there are none, which is nearly always."""
    try:
        return ray.get(refs, timeout=GET_SECONDS)
    except RayError:
        return [_fetch_one(ref) for ref in refs]


def _fetch_one(ref: ray.ObjectRef) -> Any:
    try:
        return ray.get(ref, timeout=GET_SECONDS)
    except (RayError, GetTimeoutError) as error:
        return error
