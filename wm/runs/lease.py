"""One job per run: a job holds a lease, a file in the run that it renews while it is alive.

    lease/0001.json      host, boot, pid, start, expiry

Correctness does not depend on the lease, since nothing in a run is ever replaced by other content. It keeps a second
job from repeating hours of work. It needs only put-if-absent: a job that takes over writes the next number.
"""

import contextlib
import logging
import os
import platform
import random
import re
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from wm.errors import UserError
from wm.runs.reader import read, sealed
from wm.runs.storage import Storage
from wm.schemas import integer, number, record, text

log = logging.getLogger(__name__)

FOLDER = "lease"
EXPIRY_SECONDS = 60.0  # a lease that is not renewed for this long is free
RENEW_SECONDS = 20.0
POLL_SECONDS = 1.0
WORD = text(longest=500)
SCHEMA = record(
    {
        "host": WORD,
        "boot": WORD,
        "pid": integer(1, 2**31),
        "began": WORD,
        "since": WORD,
        "until": number(0, 10**11),
        "token": WORD,
    }
)
CURE = "make sure that no job works on this run, delete it and run the same command again"


class InUse(UserError):
    """Another job holds the run."""


@dataclass(frozen=True)
class Holder:
    """A process on any machine."""

    host: str
    boot: str  # of the machine and container, within which a pid is unique
    pid: int
    began: str  # start of the process, since pids are reused
    since: str
    until: float  # seconds since 1970
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    def is_local(self) -> bool:
        """Whether it runs on this machine and in this container, so that `is_alive` is known."""
        return bool(self.boot) and (self.host, self.boot) == (socket.gethostname(), _boot_id())

    def is_alive(self) -> bool:
        """Whether a local process still runs."""
        return _start_of(self.pid) == self.began


def read_lease(storage: Storage, key: str) -> Holder | None:
    """The holder, or None if it released its lease in the meantime."""
    values = read(storage, key, SCHEMA, CURE)
    return None if values is None else Holder(**values)


@contextlib.contextmanager
def hold(storage: Storage, take_over: bool = False) -> Iterator["Lease"]:
    """Hold the lease of the run in this storage; raises a UserError that names the current holder."""
    lease = Lease(storage)
    lease.acquire(take_over)
    try:
        yield lease
    finally:
        lease.release()


class Lease:
    def __init__(self, storage: Storage):
        self.storage = storage
        self.key = ""
        self.mine = Holder(
            host=socket.gethostname(),
            boot=_boot_id(),
            pid=os.getpid(),
            began=_start_of(os.getpid()),
            since=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            until=0.0,
            token=secrets.token_hex(8),
        )
        self.lost: Holder | None = None
        self.released = threading.Event()
        self.thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def acquire(self, take_over: bool = False) -> None:
        """Take the lease, waiting if it is unknown whether its holder is alive.

        A holder that is alive raises a UserError, unless `take_over` is set.
        """
        logged = False
        first: Holder | None = None  # the holder at the first look
        while True:
            number, holder = self._newest()
            if holder is None or take_over or self._expired(holder):
                if holder is not None:
                    log.warning("taking over the run from %s", holder)
                if self._take(number + 1):
                    break
                take_over = False  # applies to that holder only
                time.sleep(random.uniform(0, 0.1))
                continue
            first = first or holder
            if holder.is_local() or holder.token != first.token or holder.until > first.until:
                raise InUse(
                    f"{self.storage.uri} is in use by {holder}: wait for that job, stop it, or add --take-over, which"
                    " makes it stop"
                )
            if not logged:
                logged = True
                left = max(0.0, min(EXPIRY_SECONDS, holder.until - time.time()))
                log.warning(
                    "the run is held by %s, elsewhere: waiting up to %.0f s to see whether it is alive"
                    " (--take-over skips the wait)",
                    holder,
                    left,
                )
            time.sleep(POLL_SECONDS)
        self.thread.start()

    def check(self) -> None:
        """Raise a UserError if another job has taken the run over."""
        if self.lost:
            raise UserError(f"{self.storage.uri} was taken over by {self.lost}: this job stops, completed work is kept")

    def release(self) -> None:
        self.released.set()
        if self.thread.ident is not None:
            self.thread.join()
        with contextlib.suppress(OSError, UserError):  # otherwise it expires
            self.storage.delete(self.key)

    def _take(self, number: int) -> bool:
        """Try to take the lease with this number, and return whether it is ours."""
        key = f"{FOLDER}/{number:04d}.json"
        if not self.storage.put_new(key, self._record(key)):
            found = read_lease(self.storage, key)
            if found is None or found.token != self.mine.token:  # otherwise it is ours, and only the response was lost
                return False
        keys = self._keys()
        if any(other > number for other in keys):  # another job already holds a higher number
            self.storage.delete(key)
            return False
        self.key = key
        for other, its_key in keys.items():
            if other < number:
                self.storage.delete(its_key)
        return True

    def _renew(self) -> None:
        trouble = False
        while not self.lost and not self.released.wait(RENEW_SECONDS):
            try:
                self._renew_once()
                trouble = False
            except (OSError, UserError) as error:
                if not trouble:
                    trouble = True
                    log.warning("can't renew the lease of the run (%s): retrying", error)

    def _renew_once(self) -> None:
        """Write a later expiry, or note who has taken the lease."""
        _, holder = self._newest()
        if holder is not None and holder.token != self.mine.token:
            self.lost = holder
        else:
            self.storage.put(self.key, self._record(self.key))

    def _record(self, key: str) -> bytes:
        return sealed(asdict(self.mine) | {"until": round(time.time() + EXPIRY_SECONDS, 3)}, key)

    def _newest(self) -> tuple[int, Holder | None]:
        """The highest number and its holder."""
        for highest, key in sorted(self._keys().items(), reverse=True):
            holder = read_lease(self.storage, key)
            if holder is not None:
                return highest, holder
        return 0, None

    def _keys(self) -> dict[int, str]:
        """The keys of all leases by their number: as text, 10000 comes before 9999."""
        found = [(re.fullmatch(rf"{FOLDER}/([0-9]{{4,15}})\.json", key), key) for key in self.storage.sizes(FOLDER)]
        return {int(name[1]): key for name, key in found if name}

    @staticmethod
    def _expired(holder: Holder) -> bool:
        return not holder.is_alive() if holder.is_local() else holder.until < time.time()


@cache
def _boot_id() -> str:
    """Identifies this boot of this machine and this container; "" if unknown."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    if platform.system() == "Darwin":
        result = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False)
        return result.stdout.strip()
    return ""


def _start_of(pid: int) -> str:
    """The start time of the process in the system's format; "" if it does not run."""
    with contextlib.suppress(OSError, IndexError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if words[0] in "ZX" else words[19]  # a zombie is dead, too
    if platform.system() == "Darwin":
        result = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return result.stdout.strip()
    return ""
