"""The seam between the method and the machine.

A stage hands *work* to a pool and can't tell whether it is done in this process (LocalPool) or on
a cluster (RayPool). What travels is light: a frozen, picklable spec; where it arrives it builds the
heavy things (environments, networks) once and keeps them.

Every unit of work has a fixed content, and its result is a pure function of (work, unit): so who
did it, how often and in what order changes nothing, and the first answer counts.
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

from wm.errors import Failure, UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a stage is: for whoever watches."""

    stage: str
    done: float
    total: float
    unit: str
    metrics: dict[str, float] = field(default_factory=dict)


class Work(Protocol):
    """A kind of unit that can be done anywhere: "play these episodes with these weights"."""

    @property
    def threads(self) -> int:
        """CPU threads that the result is defined with."""

    def build(self) -> Callable[[Any], Any]:
        """Make the heavy things; the answer does one unit. Called once a worker."""


class Task(Protocol):
    """One long piece of work that reports as it goes and finds its own way back after a crash: training."""

    @property
    def threads(self) -> int: ...

    @property
    def device(self) -> str:
        """cpu or cuda."""

    def run(self) -> Iterator[Any]:
        """Do it, yielding reports. Run again from the start after a lost node: it resumes by itself."""


class Crew(Protocol):
    """Workers that have built one work and keep it."""

    def map(self, units: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """(unit, result) as they come, in any order, each unit once. Units are taken as there is room."""


class Pool(ABC):
    @property
    @abstractmethod
    def workers(self) -> int:
        """How many units are done at the same time, as far as is known now."""

    @abstractmethod
    def crew(self, work: Work, gpu: bool = False) -> AbstractContextManager[Crew]:
        """Workers for this work, each with a CPU or a GPU to itself; gone when the context ends."""

    @abstractmethod
    def stream(self, task: Task) -> Iterator[Any]:
        """Run the task where it belongs and pass on its reports."""

    @property
    @abstractmethod
    def gpus(self) -> int:
        """How many GPUs there are."""

    def device(self, wanted: str) -> str:
        """cpu or cuda, for a config that may say auto."""
        if wanted == "cuda" and not self.gpus:
            raise UserError(
                "the config asks for cuda, but there is no GPU here: say --vision.device cpu (memory's and evolve's"
                " alike), or auto where that is known"
            )
        return ("cuda" if self.gpus else "cpu") if wanted == "auto" else wanted

    def tell(self, progress: Progress) -> None:  # noqa: B027
        """How far a stage is, for those who watch the machines as well."""

    def close(self) -> None:  # noqa: B027  (not every pool holds something)
        """Give back whatever the pool holds."""


class UnitFailed(Failure):
    """One unit raised an exception each time it was tried."""

    def __init__(self, unit: Any, tries: int, trace: str):
        super().__init__(f"{unit} failed {tries} times; the last time:\n{trace.rstrip()}")
        self.unit = unit


def set_threads(threads: int) -> None:
    """Make this process compute the way the config says, on any machine.

    Libraries otherwise take a thread a core, and sums are then added in another order.
    With 0 nothing is set or imported: work that computes nothing.
    """
    if not threads:
        return
    import cv2
    import pyarrow
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)  # numpy's BLAS, which CMA-ES decomposes its covariance with
    pyarrow.set_cpu_count(threads)
    cv2.setNumThreads(0)  # its pool costs more than it brings on 64x64 frames
    _keep_memory()


@cache
def _keep_memory() -> None:
    """Let glibc keep large blocks that are freed: torch asks for the same ones again at every step.

    Given back to the system each time, they are zeroed page by page: that costs up to a fifth of V's and M's time.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library has no mallopt, and no such trouble
            libc = ctypes.CDLL(None)
            mmap_threshold, trim_threshold = -3, -1
            libc.mallopt(mmap_threshold, 2**30)
            libc.mallopt(trim_threshold, 2**31 - 1)


class LocalPool(Pool):
    """All work in this process, one unit after the other."""

    workers = 1

    def __init__(self, retries: int = 1):
        self.retries = retries

    @property
    def gpus(self) -> int:
        import torch

        return torch.cuda.device_count()

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
            set_threads(self.work.threads)  # the stage itself may have computed in between
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
            except Exception:
                self.do = None  # whatever broke may have broken what was built, too
                if tries == self.retries:
                    raise UnitFailed(unit, tries, traceback.format_exc()) from None
                log.warning("%s failed, trying again:\n%s", unit, traceback.format_exc())
