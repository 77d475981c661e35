"""Time spent on a stage by all jobs that worked on it, including killed ones; kept in a file of the stage."""

import json
import time

from wm.runs.storage import Storage

SAVE_SECONDS = 10.0  # between writes; a killed job loses the time since the last one


class Clock:
    """Counts from now on, added to the stored time."""

    def __init__(self, storage: Storage, key: str):
        self.storage, self.key = storage, key
        self.earlier = float(json.loads(storage.get(key) or b"0"))
        self.began = self.saved = time.monotonic()

    def tick(self) -> None:
        """Save the time if the last write is long enough ago."""
        if time.monotonic() - self.saved >= SAVE_SECONDS:
            self.save()

    def save(self) -> float:
        """Write and return the seconds so far, from which a later clock continues."""
        self.saved = time.monotonic()
        seconds = round(self.earlier + self.saved - self.began, 3)
        self.storage.put(self.key, json.dumps(seconds).encode())
        return seconds
