"""Says what happened when a job ends without a word, since Ray ends its driver when one of its own processes dies.

No Python code of the driver runs then, so a small shell waits for the end of the job and speaks in its place.
"""

import contextlib
import subprocess
from collections.abc import Iterator

MESSAGE = (
    "failed: the job was ended from outside (it was killed, or a process of Ray was: raylet or GCS)\n"
    "Completed work is kept; run the same command to resume."
)
SCRIPT = 'read line || printf "%s\\n" "$1" >&2'


@contextlib.contextmanager
def announced() -> Iterator[None]:
    """Print `MESSAGE` if this process disappears within the context."""
    try:
        # A session of its own, so that Ctrl-C does not end it. It waits for a line or the end of its input.
        watcher = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT, "sh", MESSAGE], stdin=subprocess.PIPE, start_new_session=True
        )
    except OSError:  # no shell: only the message is lost
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            watcher.communicate(b"\n")
