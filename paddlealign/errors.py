"""The one error that a user may see without a traceback."""


class UserError(Exception):
    """Something the user can mend.

    The text is the whole message: the file and line or the key, the value found, what is allowed, and the fix.
    The commands print it as it is, without a traceback, and exit with 1.
    """
