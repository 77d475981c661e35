"""The two kinds of failure that are not bugs."""


class UserError(Exception):
    """A mistake that only the user can fix: the message is one line that names the cure. Exit code 2."""


class Failure(Exception):
    """The work failed, such as a unit after all retries or a diverged training. Exit code 1; completed work is kept."""
