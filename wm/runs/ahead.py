"""Making things ahead in threads. What is made, and in which order, does not depend on the threads."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def mapped(make: Callable[[T], U], items: Iterable[T], threads: int) -> Iterator[U]:
    """make(item) for each item, in order. At most `threads` results are in the making or not yet used."""
    if threads == 1:
        yield from map(make, items)
        return
    rest, pending = iter(items), deque[Future[U]]()
    with ThreadPoolExecutor(threads, thread_name_prefix="reader") as executor:
        try:
            pending.extend(executor.submit(make, item) for item in islice(rest, threads))
            while pending:
                made = pending.popleft().result()
                pending.extend(executor.submit(make, item) for item in islice(rest, 1))
                yield made
                del made
        finally:
            for future in pending:
                future.cancel()


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; a thread makes the next one while this one is used."""
    ready: queue.Queue[tuple[bool, T | BaseException]] = queue.Queue(maxsize=1)
    stop = threading.Event()
    used = threading.Semaphore(0)  # the thread makes an item only once the one before is in use

    def work() -> None:
        try:
            for item in items:
                ready.put((True, item))
                del item
                used.acquire()
                if stop.is_set():
                    return
        except BaseException as error:
            ready.put((False, error))

    thread = threading.Thread(target=work, daemon=True, name="read-ahead")
    thread.start()
    try:
        while True:
            good, item = ready.get()
            if not good:
                assert isinstance(item, BaseException)
                raise item
            used.release()
            yield item  # type: ignore[misc]
            del item
    finally:
        stop.set()
        used.release()
