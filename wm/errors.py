"""The two kinds of failure that are not a bug of ours."""


class UserError(Exception):
    """Something only the user can put right: the message is one line that names the cure. Exit code 2."""


class Failure(Exception):
    """The work itself failed (a unit again and again, a diverged training). Exit code 1, what is complete kept."""
