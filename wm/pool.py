"""The interface between the method and the machine.

A stage passes work to a pool, which does it in this process (LocalPool) or on a cluster (RayPool). Work is light and
can be pickled; a worker builds environments and networks from it once and keeps them.

The result of a unit is a pure function of (work, unit), so results do not depend on the worker, the order, or retries,
and the first answer counts.
"""

import contextlib
import ctypes
import logging
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from wm.errors import Failure, UserError, described, is_external

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """The progress of a stage."""

    stage: str
    done: float
    total: float
    unit: str
    metrics: dict[str, float] = field(default_factory=dict)


class Work(Protocol):
    """What workers need to do units of work, such as models with which to play episodes."""

    @property
    def threads(self) -> int:
        """CPU threads to compute with. They are part of the definition of a result."""

    def build(self) -> Callable[[Any], Any]:
        """Build environments and networks, and return a function that does one unit. Called once per worker."""


class Task(Protocol):
    """A training: one long piece of work that yields reports and resumes after a crash."""

    @property
    def threads(self) -> int: ...

    @property
    def device(self) -> str:
        """cpu or cuda."""

    def run(self) -> Iterator[Any]:
        """Yield reports. If a node is lost, the pool calls it again and it resumes from its checkpoint."""


class Crew(Protocol):
    """Workers that have built the same work."""

    def map(self, units: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """(unit, result) in order of completion, each unit once. Units are consumed as workers become free."""


class Pool(ABC):
    @property
    @abstractmethod
    def workers(self) -> int:
        """The current number of units that run in parallel."""

    @abstractmethod
    def crew(self, work: Work, gpu: bool = False) -> AbstractContextManager[Crew]:
        """Workers for this work, each with its own CPU or GPU, until the context ends."""

    @abstractmethod
    def stream(self, task: Task) -> Iterator[Any]:
        """Run the task on its device and yield its reports."""

    @property
    @abstractmethod
    def gpus(self) -> int:
        """The number of GPUs."""

    def device(self, wanted: str) -> str:
        """cpu or cuda for a configured device, which may be auto."""
        if wanted == "cuda" and not self.gpus:
            raise UserError(
                "there is no GPU for cuda: set --vision.device, --memory.device and --evolve.device to cpu, or those of"
                " vision and memory to auto"
            )
        return ("cuda" if self.gpus else "cpu") if wanted == "auto" else wanted

    def tell(self, progress: Progress) -> None:  # noqa: B027
        """Publish a stage's progress as metrics of the cluster."""

    def close(self) -> None:  # noqa: B027  (not every pool holds something)
        """Release the pool's resources."""


class UnitFailed(Failure):
    """A unit raised an exception in every attempt."""

    def __init__(self, unit: Any, tries: int, trace: str):
        super().__init__(f"{unit} failed {tries} times; the last exception:{_indented(trace)}")
        self.unit = unit


def explained(error: Exception) -> str:
    """A traceback, or one line for an error that no code caused."""
    return described(error) if is_external(error) else "".join(traceback.format_exception(error))


def _indented(trace: str) -> str:
    """One line stays in the same line, a traceback begins in the next one."""
    return f"\n{trace.rstrip()}" if "\n" in trace.strip() else f" {trace.strip()}"


def set_threads(threads: int) -> None:
    """Make this process compute with this many threads; 0 changes nothing.

    By default libraries use one thread per core, and the order of additions then depends on the machine.
    """
    if not threads:
        return
    import cv2
    import pyarrow
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)  # numpy's BLAS, with which CMA-ES decomposes its covariance
    pyarrow.set_cpu_count(threads)
    cv2.setNumThreads(0)  # its threads slow down work on 64x64 frames
    _keep_freed_memory()


@cache
def _keep_freed_memory() -> None:
    """Let glibc keep large freed blocks, since torch allocates the same ones in every step.

    If they are returned to the system, it zeroes their pages again, which takes up to a fifth of the trainings' time.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # other C libraries have no mallopt
            libc = ctypes.CDLL(None)
            mmap_threshold, trim_threshold = -3, -1
            libc.mallopt(mmap_threshold, 2**30)
            libc.mallopt(trim_threshold, 2**31 - 1)


class LocalPool(Pool):
    """Does all work in this process, one unit after the other."""

    workers = 1

    def __init__(self, retries: int = 1):
        self.retries = retries

    @property
    def gpus(self) -> int:
        import torch

        return torch.cuda.device_count() if torch.cuda.is_available() else 0

    @contextmanager
    def crew(self, work: Work, gpu: bool = False) -> Iterator[Crew]:
        yield _LocalCrew(work, self.retries)

    def stream(self, task: Task) -> Iterator[Any]:
        set_threads(task.threads)
        yield from task.run()


class _LocalCrew:
    def __init__(self, work: Work, retries: int):
        self.work, self.retries = work, retries
        self.do: Callable[[Any], Any] | None = None

    def map(self, units: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for unit in units:
            set_threads(self.work.threads)  # the stage may have changed them in between
            yield unit, self._attempt(unit)

    def _attempt(self, unit: Any) -> Any:
        tries = 0
        while True:
            tries += 1
            try:
                self.do = self.do or self.work.build()
                return self.do(unit)
            except UserError:
                raise
            except Exception as error:
                self.do = None  # the exception may have left it in a broken state
                if tries == self.retries:
                    raise UnitFailed(unit, tries, explained(error)) from None
                log.warning("%s failed, retrying:%s", unit, _indented(explained(error)))
