"""RayPool: runs work units on Ray actors and tolerates slow, hung and lost workers."""

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

QUEUE_SECONDS = 0.05  # of work queued at each worker, to hide the round trip to the driver; longer units need no queue
MAX_QUEUED_CALLS = 8
STRAGGLER_FACTOR = 2.0  # times the median unit time: an idle worker gets a copy of the unit
STRAGGLER_MIN_SECONDS = 0.5
TIMEOUT_FACTOR = 10.0  # times the median unit time: the worker counts as hung
START_TIMEOUT_SECONDS = 120.0  # to start a worker and build the work; doubles with each consecutive timeout
WORKER_LOST_ERRORS = (RayActorError, WorkerCrashedError, OutOfMemoryError)  # other errors concern a single result
FETCH_TIMEOUT_SECONDS = 60.0  # a result that is ready but can't be fetched in time counts as lost


class RayPool(Pool):
    """Runs work on Ray actors with one CPU or one GPU each. Call `runtime.connect` first."""

    def __init__(
        self,
        workers: int = 0,
        retries: int = 3,
        unit_seconds: float = 1800.0,
        min_timeout_seconds: float = 30.0,
        recycle_units: int = 0,
        max_deaths: int = 8,
        memory: int = 0,
        label_selector: dict[str, str] | None = None,
        gpu_workers: int = 0,
        gpu_seconds: float = 600.0,
    ):
        """
        workers: maximum number of CPU workers. 0 means one per CPU, including CPUs that the autoscaler may add;
            no more workers are requested than there are units. GPU workers are not counted.
        retries: attempts that may raise before a unit fails the job.
        unit_seconds: upper limit of the timeout for one unit, and the timeout itself until a median is known.
        min_timeout_seconds: lower limit of that timeout, which is otherwise 10 times the median unit time.
        recycle_units: replace a worker after this many units, to bound memory leaks in environments. 0 means never.
        max_deaths: number of workers that one unit may kill before it fails the job.
        memory: bytes to request for each worker, which keeps Ray from overcommitting a node's memory.
        label_selector: nodes for the workers. The default is nodes with the label wm.io/role=rollout, if there are any.
        gpu_workers: maximum number of GPU workers. 0 means one per GPU, including those that the autoscaler may add.
        gpu_seconds: how long the device auto waits for a node with a GPU to start.
        """
        self.gpu_limit, self.gpu_seconds = gpu_workers, gpu_seconds
        self.limit, self.retries, self.max_deaths = workers, retries, max_deaths
        self.unit_seconds, self.min_timeout_seconds = unit_seconds, min_timeout_seconds
        self.recycle_units = recycle_units
        self.options: dict[str, Any] = {"memory": memory} if memory else {}
        if label_selector is not None:
            self.options["label_selector"] = label_selector
        self.stats, self.metrics = Stats(), DriverMetrics()
        self.open_crews: list[_Crew] = []

    @property
    def workers(self) -> int:
        return self.limit or max(1, sum(node.cpus for node in runtime.rollout_nodes(runtime.nodes())))

    @contextmanager
    def crew(self, work: Work, gpu: bool = False) -> Iterator[Crew]:
        crew = _Crew(self, work, gpu)
        self.open_crews.append(crew)
        try:
            yield crew
        finally:
            self.open_crews.remove(crew)
            crew.group.close()

    @property
    def gpus(self) -> int:
        return max(runtime.planned_gpus(), sum(node.gpus for node in runtime.nodes()))

    def device(self, wanted: str) -> str:
        found = super().device(wanted)
        if wanted == "auto" and found == "cuda" and (reason := training.missing_gpu(self.gpu_seconds)):
            log.warning("%s: training on the CPU", reason)
            return "cpu"
        return found

    def stream(self, task: Task) -> Iterator[Any]:
        return training.stream(task, self.max_deaths)

    def tell(self, progress: Progress) -> None:
        self.metrics.progress(progress)

    def close(self) -> None:
        for crew in self.open_crews:
            crew.group.close()


class _Crew:
    """Dispatches units to workers on demand. If several copies of a unit run, the first result wins."""

    def __init__(self, pool: RayPool, work: Work, gpu: bool):
        self.pool, self.stats = pool, pool.stats
        self.group = WorkerGroup(work, pool.gpu_limit if gpu else pool.limit, pool.options, pool.stats, gpu)
        self.unfinished: set[WorkItem] = set()  # items of the current map without a result
        self.backlog: deque[WorkItem] = deque()  # unfinished items that no worker has
        self.durations: list[float] = []  # seconds per unit in the current map, sorted
        self.median: float | None = None  # of `durations`; kept from the previous map until the first result
        self.failure: Exception | None = None
        self.failed_starts = 0  # consecutive workers that died before they were ready
        self.start_timeouts = 0  # consecutive workers that did not become ready in time
        self.next_check = 0.0

    def map(self, units: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        assert not self.unfinished, "a crew runs one map at a time"
        source = iter(units)
        self.durations, self.failure = [], None
        self.group.expect_workers()
        answers: list[tuple[Any, Any]] = []
        try:
            while True:
                self._take_units(source)
                self.group.scale_to(len(self.unfinished))
                self._dispatch()
                yield from answers  # after the dispatch, so that workers stay busy while the caller handles results
                if not self.unfinished:
                    return
                answers = self._collect_results()
                if self.failure:
                    yield from answers
                    raise self.failure
                self._check_workers()
        finally:
            for item in self.unfinished:
                item.done = True  # ignore results that arrive later
            self.unfinished.clear()
            self.backlog.clear()

    def _take_units(self, source: Iterator[Any]) -> None:
        # Two more for each worker: one to send ahead, and one to know that this leaves enough for the others.
        most = max(len(self.group.available) * (self._queue_depth() + 2), self.group.capacity)
        while len(self.unfinished) < most:
            try:
                item = WorkItem(next(source))
            except StopIteration:
                return
            self.unfinished.add(item)
            self.backlog.append(item)

    def _queue_depth(self) -> int:
        """Maximum number of calls per worker: above 1 only if a unit takes about as long as a round trip."""
        if self.median is None:
            return 1
        return 1 + min(MAX_QUEUED_CALLS - 1, int(QUEUE_SECONDS / max(self.median, 1e-6)))

    def _dispatch(self) -> None:
        """Send units from the backlog to the workers with the shortest queues first.

        While more units are left than there are workers, a unit waits at each worker, so that none waits for the
        driver. The last units are sent on demand, which balances the load.
        """
        depth = self._queue_depth()
        free = [worker for worker in self.group.available if len(worker.calls) < depth] if self.backlog else []
        for load in range(depth):
            for worker in [worker for worker in free if len(worker.calls) == load][: len(self.backlog)]:
                self.group.call(worker, "run", self.backlog.popleft())
        ahead = len(self.backlog) - len(self.group.available)
        if ahead > 0:
            for worker in [worker for worker in self.group.available if len(worker.calls) == depth][:ahead]:
                self.group.call(worker, "run", self.backlog.popleft())
        if not self.backlog:
            self._dispatch_copies()

    def _dispatch_copies(self) -> None:
        """Send copies of straggling units, and of units on draining nodes, to idle workers."""
        idle = [worker for worker in self.group.available if not worker.calls]
        if not idle:
            return
        now, slow = time.monotonic(), max(STRAGGLER_FACTOR * (self.median or float("inf")), STRAGGLER_MIN_SECONDS)
        late = [
            call
            for call in self.group.calls.values()
            if call.item
            and not call.item.done
            and call.item.copies == 1
            and (call.worker.draining or (self.durations and now - self._started_at(call) > slow))
        ]
        for worker, call in zip(idle, sorted(late, key=self._started_at), strict=False):
            assert call.item
            log.info("%s is slow: sending a copy to another worker", call.item.unit)
            self.stats.reissued += 1
            self.group.call(worker, "run", call.item)

    @staticmethod
    def _started_at(call: Call) -> float:
        return call.worker.busy_since if call.worker.calls[0] is call else call.sent

    def _collect_results(self) -> list[tuple[Any, Any]]:
        """Wait briefly for a result, then take all that are ready."""
        refs = list(self.group.calls)
        if not refs:
            time.sleep(0.1)
            return []
        idle = any(not worker.calls for worker in self.group.available)
        ready, _ = ray.wait(refs, timeout=0.1 if idle else min(1.0, self.pool.min_timeout_seconds / 4))
        if ready and len(refs) > 1:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        answers = []
        for ref, answer in zip(ready, _fetch(ready), strict=True):
            if ref not in self.group.calls:  # dropped with its worker earlier in this loop
                continue
            call = self.group.calls[ref]
            if isinstance(answer, WORKER_LOST_ERRORS) or (isinstance(answer, Exception) and call.item is None):
                self._on_worker_lost(call, answer)
                continue
            self.group.answered(ref)
            if call.item is None:
                self._on_prepared(call, answer)
            elif not call.item.done:
                answers += self._handle_result(call.item, answer)
            if call.item:
                call.worker.units_run += 1
                if self.pool.recycle_units and call.worker.units_run >= self.pool.recycle_units:
                    self.group.recycle(call.worker)
        if self.durations:
            self.median = self.durations[len(self.durations) // 2]
        return answers

    def _on_prepared(self, call: Call, answer: Any) -> None:
        if call.kind == "identify":
            call.worker.node, call.worker.pid = answer
        else:
            self.group.mark_ready(call.worker)
            self.failed_starts = self.start_timeouts = 0

    def _handle_result(self, item: WorkItem, answer: Any) -> list[tuple[Any, Any]]:
        """Return the unit with its result, or retry it, or fail the job."""
        if isinstance(answer, ObjectLostError | GetTimeoutError):  # the node died after the unit was done
            self._requeue([item])
            self._count_death(item, f"last error: {brief(answer)}")
            return []
        value: Any
        kind, value, seconds = ("failed", str(answer), 0.0) if isinstance(answer, Exception) else answer
        if kind == "done":
            item.done = True
            self.unfinished.discard(item)
            self.stats.units += 1
            insort(self.durations, seconds)
            return [(item.unit, value)]
        if kind == "stop":
            self._fail(value)
            return []
        item.tries += 1
        if item.tries >= self.pool.retries:
            self._fail(UnitFailed(item.unit, item.tries, value))
        else:
            log.warning("%s failed, retrying:\n%s", item.unit, value)
            self._put_back(item)
        return []

    def _put_back(self, item: WorkItem) -> None:
        if not item.done and not item.copies:
            self.backlog.appendleft(item)

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error

    def _on_worker_lost(self, call: Call, error: Exception) -> None:
        """Requeue the units of a worker that died or can't be reached."""
        worker = call.worker
        first = worker.calls[0]
        message = str(error)  # only the message tells a lost node from a lost process
        node = "its node has died" in message or "never ran" in message or getattr(error, "preempted", False)
        if isinstance(error, ActorUnavailableError):
            items = self.group.drop_calls(worker)
            self.group.prepare(worker)
        else:
            log.warning("lost worker %d: %s", worker.pid, brief(error))
            self.stats.died += 1
            items = self.group.remove(worker)
        self._requeue(items)
        if node or worker.draining:
            return
        if first.item:
            self._count_death(first.item, f"last error: {brief(error)}")
        elif not worker.ready:
            self.failed_starts += 1
            if self.failed_starts >= self.pool.max_deaths:
                self._fail(Failure(f"{self.failed_starts} workers died before they were ready: {brief(error)}"))

    def _requeue(self, items: list[WorkItem]) -> None:
        for item in reversed(items):
            if not item.done and not item.copies:
                self.stats.requeued += 1
                self._put_back(item)

    def _count_death(self, item: WorkItem, why: str) -> None:
        item.deaths += 1
        if item.deaths >= self.pool.max_deaths and not item.done:
            self._fail(Failure(f"{item.unit} killed {item.deaths} workers (out of memory or a crash?); {why}"))

    def _check_workers(self) -> None:
        """Kill workers that exceed their timeout."""
        now = time.monotonic()
        if now < self.next_check:
            return
        self.next_check = now + min(1.0, self.pool.min_timeout_seconds / 4)
        self.pool.metrics.crew(self.stats, len(self.backlog), len(self.unfinished) - len(self.backlog))
        start_timeouts = self.start_timeouts
        for worker in [worker for worker in self.group.workers if worker.calls]:
            item = worker.calls[0].item
            elapsed, timeout = now - worker.busy_since, self._timeout(item)
            if elapsed < timeout:
                continue
            self._requeue(self.group.remove(worker))
            if not item:  # either it hangs, or no node has room for it yet; a new request is harmless then
                log.warning("a worker did not start within %.0f s: requesting another", elapsed)
                self.start_timeouts = start_timeouts + 1
                continue
            log.warning(
                "killed worker %d as unresponsive: %.0f s without a result for %s", worker.pid, elapsed, item.unit
            )
            self.stats.hung += 1
            item.hangs += 1
            self._count_death(item, f"the last one was unresponsive for {elapsed:.0f} s")

    def _timeout(self, item: WorkItem | None) -> float:
        """Seconds allowed for a unit (None: a start). Grows with each timeout, so that slow units finish in the end."""
        if item is None:
            return START_TIMEOUT_SECONDS * 2 ** min(self.start_timeouts, 6)
        if self.median is None:
            return self.pool.unit_seconds
        timeout = max(self.pool.min_timeout_seconds, TIMEOUT_FACTOR * self.median)
        return min(self.pool.unit_seconds, timeout * 4**item.hangs)


def _fetch(refs: list[ray.ObjectRef]) -> list[Any]:
    """Results, with errors in place of those that failed. One `ray.get` suffices unless there is an error."""
    try:
        return ray.get(refs, timeout=FETCH_TIMEOUT_SECONDS)
    except RayError:
        return [_fetch_one(ref) for ref in refs]


def _fetch_one(ref: ray.ObjectRef) -> Any:
    try:
        return ray.get(ref, timeout=FETCH_TIMEOUT_SECONDS)
    except (RayError, GetTimeoutError) as error:
        return error
