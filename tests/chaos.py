"""What chaos tests killed and how the results compare, printed as a table at the end of `make chaos`."""

from collections import Counter
from dataclasses import dataclass, field

WHAT = ("driver", "worker", "node", "raylet", "GCS")


@dataclass
class Chaos:
    rows: list[tuple[str, Counter[str], str, str]] = field(default_factory=list)

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
        return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


CHAOS = Chaos()
