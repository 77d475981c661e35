"""Time spent on a stage by all jobs that worked on it, including killed ones; kept in a file of the stage."""

import time

from wm.runs.reader import read, sealed
from wm.runs.storage import Storage
from wm.schemas import number, record

SCHEMA = record({"seconds": number(0)})
CURE = "delete it, which only forgets the time spent so far, and run the same command again"
SAVE_SECONDS = 10.0  # between writes; a killed job loses the time since the last one


def read_seconds(storage: Storage, key: str) -> float:
    """The stored time; 0 if there is none."""
    values = read(storage, key, SCHEMA, CURE)
    return float(values["seconds"]) if values else 0.0


class Clock:
    """Counts from now on, added to the stored time."""

    def __init__(self, storage: Storage, key: str):
        self.storage, self.key = storage, key
        self.earlier = read_seconds(storage, key)
        self.began = self.saved = time.monotonic()

    def tick(self) -> None:
        """Save the time if the last write is long enough ago."""
        if time.monotonic() - self.saved >= SAVE_SECONDS:
            self.save()

    def save(self) -> float:
        """Write and return the seconds so far, from which a later clock continues."""
        self.saved = time.monotonic()
        seconds = round(self.earlier + self.saved - self.began, 3)
        self.storage.put(self.key, sealed({"seconds": seconds}, self.key))
        return seconds
