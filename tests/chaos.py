"""How chaos tests kill, what they killed and how the results compare: a table at the end of `make chaos`."""

import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from processes import children_of

WHAT = ("driver", "worker", "node", "raylet", "GCS")


@dataclass
class Chaos:
    rows: list[tuple[str, Counter[str], str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # lines below the table

    def add(self, test: str, killed: Counter[str], expected: str, found: str) -> None:
        """A test with what it killed, and the hash of its result without and with it."""
        self.rows.append((test, killed, expected, found))

    def table(self) -> str:
        head = ["test", *WHAT, "hash, undisturbed", "hash, disturbed", "same"]
        rows = []
        for test, killed, expected, found in self.rows:
            same = "yes" if expected == found else "NO"
            rows.append([test, *(str(killed[what]) for what in WHAT), expected[:12], found[:12], same])
        total = Counter[str]()
        for _, killed, _, _ in self.rows:
            total.update(killed)
        rows.append([f"together: {sum(total.values())}", *(str(total[what]) for what in WHAT), "", "", ""])
        return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]) + "".join(
            f"\n{note}" for note in self.notes
        )


CHAOS = Chaos()


def workers_of(node: Any) -> list[int]:
    """Process ids of the workers on a node, which are children of its raylet."""
    return children_of(node.all_processes["raylet"][0].process.pid, b"ray::Worker")


def kill_a_worker(nodes: Sequence[Any], rng: random.Random) -> bool:
    """Kill one of these nodes' workers, or stop it without an end in one of ten cases; False if there is none."""
    pids = [pid for node in nodes for pid in workers_of(node)]
    if not pids:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(rng.choice(pids), rng.choices([signal.SIGKILL, signal.SIGSTOP], [9, 1])[0])
    return True


def lose_a_node(nodes: list[Any], add: Callable[[], Any]) -> None:
    """Kill the processes of the oldest node, and add another."""
    nodes.pop(0).kill_all_processes(check_alive=False, allow_graceful=False)
    nodes.append(add())
