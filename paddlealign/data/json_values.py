"""One JSON value out of a text, and what is wrong with a text that is none."""

import json
import re
from dataclasses import dataclass
from typing import Any

from paddlealign.data.pieces import KEPT_TEXT, BadRow

# Deeper rows are refused by us and not by the stack, whose depth is another in each process.
DEEPEST = 100
_SHOWN = 24
# A value that is cut off may fail at most so many characters before the end: -Infinity, or an escape of two halves.
NEAR_THE_END = 14
_BEGUN = re.compile(r"\\?u?[0-9a-fA-F]{0,4}|-?I[nfity]*|N[aN]*|t[rue]*|f[alse]*|n[ul]*|-")


@dataclass(frozen=True)
class DoubledKey:
    """What stands in the place of a JSON object, or of the row around it, in which a key stands twice: one of the values would be lost."""

    key: str


def json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | DoubledKey:
    """A JSON object, or word of a key that stands twice in it or in an object that it holds, in a list or not."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        return DoubledKey(next(key for key in keys if keys.count(key) > 1))
    items = (item for value in found.values() for item in (value if isinstance(value, list) else [value]))
    return next((item for item in items if isinstance(item, DoubledKey)), found)


DECODER = json.JSONDecoder(object_pairs_hook=json_object)


def bad_byte(text: str) -> int | None:
    """Where the first byte stands that is no UTF-8, in a text that was decoded with surrogateescape; None where there is none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def may_go_on(error: Exception, text: str) -> bool:
    """Whether a JSON value may have failed only because there is more of the text to come."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos >= len(text) - NEAR_THE_END


def breaks_off(error: Exception, rest: str) -> bool:
    """Whether a JSON value failed because the text ends. rest: the text from the place of the error on."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or _BEGUN.fullmatch(rest.rstrip()) is not None


def too_deep(value: object, text: str) -> bool:
    """Whether lists and objects stand in each other more than ``DEEPEST`` times. text: that the value was read from."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    level: list[object] = [value]
    for _ in range(DEEPEST + 1):
        lists = [item if isinstance(item, list | tuple) else item.values() for item in level if isinstance(item, list | tuple | dict)]
        level = [item for items in lists for item in items]
    return bool(level)


def no_json(line: int, column: int | None, error: Exception, text: str, place: int = 0) -> BadRow:
    """A row that is no JSON. error: what the decoder said. text: the row. place: of the error in it."""
    if isinstance(error, RecursionError):
        return too_deeply(line, text)
    found = text[place : place + _SHOWN]
    seen = f"found {found!r}{'...' if len(text) > place + _SHOWN else ''}" if found.strip() else "found its end"
    reason = "a whole number of more than 4,300 digits"  # the one ValueError of Python's own
    if isinstance(error, json.JSONDecodeError):
        reason = f"{error.msg}, {seen}"
        if error.msg.startswith("Invalid control character"):
            reason += f"; write it as \\u{ord(found[:1] or '0'):04x}"
    return BadRow(line, column, f"not valid JSON ({reason}). Each row should be one JSON object.", text[:KEPT_TEXT])


def not_utf8(line: int, column: int, byte: int, text: str) -> BadRow:
    """A row with a byte that is not UTF-8. column: that byte's place in its line, counted in bytes."""
    return BadRow(line, column, f"not UTF-8 (byte 0x{byte:02x}). Save the file as UTF-8.", text[:KEPT_TEXT])


def unfinished(line: int, error: Exception | None, text: str, column: int | None = None) -> BadRow:
    """A row in the middle of which the file ends. column: where; None: at the end of the text."""
    why = f" ({error.msg})" if isinstance(error, json.JSONDecodeError) else ""
    place = len(text.rstrip()) + 1 if column is None else column
    return BadRow(line, place, f"the file ends in the middle of this row{why}: it was cut off. Get the file anew.", text[:KEPT_TEXT])


def too_deeply(line: int, text: str) -> BadRow:
    """A row in which lists and objects stand in each other more than ``DEEPEST`` times."""
    return BadRow(line, None, f"nested too deeply; lists and objects may stand in each other {DEEPEST} times.", text[:KEPT_TEXT])
