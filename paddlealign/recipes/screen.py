"""What a command says, where it may be that nobody can take it down: a full disk under its log ends no run."""

import errno
import os
import sys
from typing import Any, TextIO

from paddlealign.messages.language import translated

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


class Screen:
    """A stream that is written as long as it can be; then that is told once on stderr, and what follows is lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write as the stream does."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Flush as the stream does."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        """All else is the stream's."""
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        if error.errno not in _NO_ROOM:
            raise error
        # What waits in the stream's buffer must go somewhere, or Python's own flush at the end fails as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        told = f"note: what is said here cannot be written any more: {error.strerror}; the run goes on"
        print(translated(told, sys.stderr), file=sys.stderr, flush=True)
