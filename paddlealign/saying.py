"""What is said at which ``log_level``. Python's own logger "paddlealign" holds the level, since it is the process's."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGER = logging.getLogger("paddlealign")
_NOTES = ("note:", "warning:")


@contextmanager
def speaking(level: str) -> Iterator[None]:
    """Let a command say what belongs to ``level``: "debug", "info", "warning" or "error". Outside of this it is "info"."""
    before = _LOGGER.level
    _LOGGER.setLevel(level.upper())
    try:
        yield
    finally:
        _LOGGER.setLevel(before)


def is_said(text: str, warns: bool = False) -> bool:
    """Whether a line is to be said: notes and what ``warns`` also at "warning", all else at "info" and "debug"."""
    wanted = logging.WARNING if warns or text.startswith(_NOTES) else logging.INFO
    return _level() <= wanted


def tells_all() -> bool:
    """Whether every detail is wanted, and what Paddle says of itself."""
    return _level() <= logging.DEBUG


def shows_bars() -> bool:
    """Whether a bar that moves can be shown, and is wanted."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and is_said("")


def _level() -> int:
    return _LOGGER.level or logging.INFO
