"""How long something took, although the jobs that were at it may have been killed: a number beside their work."""

import json
import time

from wm.runs.storage import Storage

NOTED = 10.0  # seconds between notes, at least; a killed job leaves out what came after its last one


class Clock:
    """Runs from now on, after what it had come to before."""

    def __init__(self, storage: Storage, key: str):
        self.storage, self.key = storage, key
        self.earlier = float(json.loads(storage.get(key) or b"0"))
        self.began = self.noted = time.monotonic()

    def tick(self) -> None:
        """Note the time, if it is time."""
        if time.monotonic() - self.noted >= NOTED:
            self.note()

    def note(self) -> float:
        """The seconds so far, which are what the next clock here begins with."""
        self.noted = time.monotonic()
        seconds = round(self.earlier + self.noted - self.began, 3)
        self.storage.put(self.key, json.dumps(seconds).encode())
        return seconds
