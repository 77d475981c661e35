"""The two kinds of failure that are not bugs, and how errors from outside are told apart from bugs."""


class UserError(Exception):
    """A mistake that only the user can fix: the message is one line that names the cure. Exit code 2."""


class Failure(Exception):
    """The work failed, such as a unit after all retries or a diverged training. Exit code 1; completed work is kept."""


def is_external(error: BaseException) -> bool:
    """Whether the cause lies outside of the program: files, the network, memory or threads of the machine."""
    text = str(error)
    return isinstance(error, OSError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(part in text for part in ("can't allocate memory", "out of memory", "can't start new thread"))
    )


def described(error: BaseException) -> str:
    """The error in one line: its type and what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
