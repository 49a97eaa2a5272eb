"""The ends of a run that a user may see without a traceback."""


class UserError(Exception):
    """Something the user can mend.

    The text is the whole message: the file and line or the key, the value found, what is allowed, and the fix.
    The commands print it as it is, without a traceback, and exit with 1.
    """


class Stopped(Exception):  # noqa: N818 - it is no error
    """A run that ends before its end, as it was asked to or had to, has left a checkpoint. text: what is told. code: the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.text, self.code = text, code
