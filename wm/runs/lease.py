"""One writer per run: who works on it says so in the run, and says it again while it lives.

    lease/0001.json      host, boot, pid, since when, until when

Correctness does not rest on it (nothing in a run is ever replaced by something else); it spares a second job hours of
work that the first one does as well. It needs no more than put-if-absent: whoever takes over writes the next number.
"""

import contextlib
import json
import logging
import os
import platform
import random
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
from wm.runs.storage import Storage, to_json

log = logging.getLogger(__name__)

FOLDER = "lease"
SECONDS = 60.0  # without a word, after which a holder counts as gone
RENEW_SECONDS = 20.0
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Holder:
    """A process, wherever it is."""

    host: str
    boot: str  # of the machine, and of the container that it is in: a pid means something only there
    pid: int
    began: str  # when the process began, since pids are used again
    since: str
    until: float  # seconds since 1970
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    def near(self) -> bool:
        """Whether we can see for ourselves if it lives."""
        return bool(self.boot) and (self.host, self.boot) == (socket.gethostname(), _boot())

    def alive(self) -> bool:
        """To be asked of one that is near."""
        return _began(self.pid) == self.began


@contextlib.contextmanager
def hold(storage: Storage, take_over: bool = False) -> Iterator["Lease"]:
    """The lease of the run in that place, or the Mistake that says who has it."""
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
            boot=_boot(),
            pid=os.getpid(),
            began=_began(os.getpid()),
            since=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            until=0.0,
            token=secrets.token_hex(8),
        )
        self.lost: Holder | None = None
        self.over = threading.Event()
        self.renewing = threading.Thread(target=self._renew, name="lease", daemon=True)

    def acquire(self, take_over: bool = False) -> None:
        """Wait for a holder that may be gone; one that lives is a Mistake, unless it is to be taken over."""
        said = False
        first: Holder | None = None  # who had it when we came
        while True:
            number, holder = self._newest()
            if holder is None or take_over or self._gone(holder):
                if holder is not None:
                    log.warning("the run was left by %s: taken over", holder)
                if self._take(number + 1):
                    break
                take_over = False  # from whom it was to be taken, and no other
                time.sleep(random.uniform(0, 0.1))
                continue
            first = first or holder
            if holder.near() or holder.token != first.token or holder.until > first.until:
                raise UserError(
                    f"{self.storage.uri} is being worked on by {holder}: wait for it, or end it;"
                    " or say --take-over, and it stops by itself"
                )
            if not said:
                said = True
                left = max(0.0, min(SECONDS, holder.until - time.time()))
                log.warning(
                    "the run is held by %s, which can't be seen from here: waiting for a sign of it, %.0f s at most"
                    " (--take-over doesn't wait)",
                    holder,
                    left,
                )
            time.sleep(LOOK_SECONDS)
        self.renewing.start()

    def check(self) -> None:
        """A Mistake if another job has taken the run over meanwhile."""
        if self.lost:
            raise UserError(
                f"{self.storage.uri} was taken over by {self.lost}: this job stops, what is complete is kept"
            )

    def release(self) -> None:
        self.over.set()
        if self.renewing.ident is not None:
            self.renewing.join()
        with contextlib.suppress(OSError, UserError):  # it expires by itself
            self.storage.delete(self.key)

    def _take(self, number: int) -> bool:
        """Whether the lease of that number is ours."""
        key = f"{FOLDER}/{number:04d}.json"
        if not self.storage.put_new(key, self._said()):
            found = self._read(key)
            if found is None or found.token != self.mine.token:  # else it is: only the answer was lost
                return False
        keys = self._keys()
        if max(keys, default=key) > key:  # another was quicker by so much that we took its predecessor's number
            self.storage.delete(key)
            return False
        self.key = key
        for other in keys:
            if other < key:
                self.storage.delete(other)
        return True

    def _renew(self) -> None:
        trouble = False
        while not self.over.wait(RENEW_SECONDS):
            try:
                _, holder = self._newest()
                if holder is not None and holder.token != self.mine.token:
                    self.lost = holder
                    return
                self.storage.put(self.key, self._said())
                trouble = False
            except (OSError, UserError) as error:
                if not trouble:
                    trouble = True
                    log.warning("the run's lease can't be renewed (%s): trying again", error)

    def _said(self) -> bytes:
        return to_json(asdict(self.mine) | {"until": round(time.time() + SECONDS, 3)})

    def _newest(self) -> tuple[int, Holder | None]:
        """The highest number, and whose it is."""
        for key in reversed(self._keys()):
            holder = self._read(key)
            if holder is not None:
                return int(key.rpartition("/")[2].removesuffix(".json")), holder
        return 0, None

    def _keys(self) -> list[str]:
        return [key for key in self.storage.sizes(FOLDER) if key.removesuffix(".json").rpartition("/")[2].isdigit()]

    def _read(self, key: str) -> Holder | None:
        data = self.storage.get(key)
        if data is None:
            return None  # given back while we looked
        try:
            return Holder(**json.loads(data))
        except (ValueError, TypeError):
            raise UserError(
                f"{self.storage.uri}/{key} is no lease of ours: remove it and give the same command again"
            ) from None

    @staticmethod
    def _gone(holder: Holder) -> bool:
        return not holder.alive() if holder.near() else holder.until < time.time()


@cache
def _boot() -> str:
    """What tells this boot of this machine, and this container on it, from all others; "" where nothing does."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    if platform.system() == "Darwin":
        asked = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False)
        return asked.stdout.strip()
    return ""


def _began(pid: int) -> str:
    """When the process began, in the system's own words; "" if there is none."""
    with contextlib.suppress(OSError, IndexError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if words[0] in "ZX" else words[19]  # dead, although nobody has asked how it went
    if platform.system() == "Darwin":
        asked = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return asked.stdout.strip()
    return ""
