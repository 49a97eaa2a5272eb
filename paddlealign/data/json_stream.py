"""JSON values that are not one to a line, one by one: the rows of an array, or objects one after another. Memory: the longest row's."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paddlealign.data import json_values as values
from paddlealign.data.pieces import KEPT_TEXT, LONGEST_ROW, BadRow, Blocks, Cut, Piece, rest_is_lost
from paddlealign.data.python_literals import literal_rows
from paddlealign.errors import UserError

# A Python list has no decoder that stops behind a row, so it is read as a whole.
LONGEST_LITERAL = 1 << 26


@dataclass
class Window:
    """The part of a file that is looked at.

    text, place: what is in memory, and how much of it is done with. line, column: of that place, from 1. ended: nothing follows the text.
    cut: why, where the file could not be read to its end. Bytes that are no UTF-8 stand in the text as ``json_values.bad_byte`` finds them.
    """

    blocks: Blocks
    text: str = ""
    place: int = 0
    line: int = 1
    column: int = 1
    ended: bool = False
    cut: Cut | None = None
    _decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("surrogateescape"))

    def more(self) -> bool:
        """Read at least as much again as is not done with, and forget what is. Says whether anything came."""
        parts, wanted = [self.text[self.place :]], len(self.text) - self.place
        size = 0
        while not self.ended and (not size or size < wanted):
            block = next(self.blocks, None)
            if block is None or isinstance(block, Cut):
                self.ended, self.cut = True, block
            part = self._decoder.decode(block if isinstance(block, bytes) else b"", final=self.ended)
            size += len(part)
            parts.append(part)
        self.text, self.place = "".join(parts), 0
        return size > 0

    def go_to(self, place: int) -> None:
        """Be done with the text up to a place of it."""
        self.line, self.column = self.position(place)
        self.place = place

    def position(self, place: int) -> tuple[int, int]:
        """Line and column of a place of the text that is not before the window's."""
        last = self.text.rfind("\n", self.place, place)
        column = self.column + place - self.place if last < 0 else place - last
        return self.line + self.text.count("\n", self.place, place), column

    def next_sign(self) -> str:
        """Go to the next character that is no space and say which it is; "" at the end."""
        while True:
            place = self.place
            while place < len(self.text) and self.text[place].isspace():
                place += 1
            self.go_to(place)
            if place < len(self.text):
                return self.text[place]
            if not self.more():
                return ""

    def value(self) -> tuple[Any, int]:
        """The JSON value that begins at the place, and the place behind it. Raises ValueError or RecursionError where there is none."""
        while True:
            try:
                value, end = values.DECODER.raw_decode(self.text, self.place)
            except (ValueError, RecursionError) as error:
                if self.ended or not values.may_go_on(error, self.text) or len(self.text) - self.place > LONGEST_ROW:
                    raise
            else:
                if end < len(self.text) or self.ended:  # a number at the very end may have more digits
                    return value, end
            self.more()

    def skip_to(self, mark: str) -> tuple[bool, str]:
        """Go behind the line feed with which the mark begins, or to the end where it does not come or is empty.

        Says which, and the text that was passed, up to KEPT_TEXT.
        """
        passed, size = [], 0
        while True:
            found = self.text.find(mark, self.place) if mark else -1
            to = found + 1 if found >= 0 else len(self.text) if self.ended else max(self.place, len(self.text) - len(mark))
            if size < KEPT_TEXT:
                passed.append(self.text[self.place : to])
                size += to - self.place
            self.go_to(to)
            if found >= 0 or self.ended:
                return found >= 0, "".join(passed)[:KEPT_TEXT]
            self.more()


def is_objects(window: Window) -> bool:
    """Whether a file that begins with an object has one after another, and not one to a line."""
    if window.next_sign() != "{":
        return False
    if window.text[window.place :].partition("\n")[0].strip() == "{" and "\n" in window.text[window.place :]:
        return True
    try:
        _, end = window.value()
    except (ValueError, RecursionError):
        return False
    if "\n" in window.text[window.place : end]:
        return True
    window.go_to(end)
    while not window.text[window.place :].strip(" \t") and window.more():
        pass  # the file's block ended between two rows
    return window.text[window.place :].lstrip(" \t").startswith("{")


def stream_pieces(path: Path, window: Window, array: bool) -> Iterator[Piece]:
    """The rows of a JSON array, or JSON objects one after another.

    Behind a row that is broken the next one is found where rows begin on lines of their own, all at the same depth as the first; else
    all that follows is lost with it. An array of Python literals is read, as a whole. Raises UserError where it is too long for that.
    """
    if array:
        window.next_sign()
        window.go_to(window.place + 1)
    mark, first = "", True
    while True:
        sign = window.next_sign()
        if not sign:
            break
        if array and sign == "]":
            told, goes_on = _behind_end(window, mark)
            yield from told
            if not goes_on:
                return
            continue
        if first:
            mark = _mark(window)
        try:
            value, end = window.value()
        except (ValueError, RecursionError) as error:
            place = max(0, getattr(error, "pos", window.place) - window.place)
            literals = _literal_rows(path, window, place) if array and first else None
            if literals is not None:
                yield from literals
                return
            piece, found = _broken(window, error, place, mark)
            yield piece
            if not found:
                return
        else:
            text = window.text[window.place : end]
            if isinstance(value, list) and mark and mark in text:  # a bracket too many has made one of the rows behind it
                line, column = window.line, window.column
                _, text = window.skip_to(mark)
                yield Piece(line, None, BadRow(line, column, "found a list, a row is a JSON object.", text))
                continue
            yield Piece(window.line, None, _checked(window, value, text))
            window.go_to(end)
            if array and (missing := _behind_row(window, mark)) is not None:
                yield missing
        first = False
    if window.cut is not None:
        yield rest_is_lost(window.line, window.cut)
    elif array:
        reason = "the file ends before the array does, which a ] closes: it was cut off."
        yield Piece(window.line, None, BadRow(window.line, window.column, reason, ""))


def _checked(window: Window, value: Any, text: str) -> Any:
    """The value, or what is wrong with the text that it was read from."""
    bad = values.bad_byte(text)
    if bad is not None:
        return _bad_byte(window, text, bad)
    return values.no_json(window.line, None, RecursionError(), text) if values.too_deep(value, text) else value


def _bad_byte(window: Window, text: str, place: int) -> BadRow:
    """What is wrong with a row in which no UTF-8 stands at a place. text: the window's, from the row on."""
    line, _ = window.position(window.place + place)
    before = len(text[:place].rpartition("\n")[2].encode(errors="surrogateescape"))
    return values.not_utf8(line, before + (1 if line > window.line else window.column), ord(text[place]) - 0xDC00, text)


def _mark(window: Window) -> str:
    """What stands before a row that is on a line of its own, from the line feed on; "" where the first row is not."""
    before = window.text[: window.place].rpartition("\n")[2]
    alone = not before.strip() and len(before) == window.column - 1 and window.text[window.place] == "{"
    return f"\n{before}{{" if alone else ""


def _broken(window: Window, error: Exception, place: int, mark: str) -> tuple[Piece, bool]:
    """The piece of a row that is no JSON, and whether there is a row behind it, to which the window goes. place: the error's, in it."""
    line, rest = window.line, window.text[window.place :]
    ends = window.ended and values.breaks_off(error, rest[place:])
    if ends and window.cut is not None:
        return rest_is_lost(line, window.cut, rest), False
    bad = values.bad_byte(rest[: place + 1])
    at = window.position(window.place + place)
    if bad is not None:
        told = _bad_byte(window, rest, bad)
    elif ends:
        told = values.unfinished(at[0], error, rest, at[1])
    else:
        told = values.no_json(at[0], at[1] if hasattr(error, "pos") else None, error, rest, place)
    found, text = window.skip_to(mark)
    lost = "" if mark or ends else " Where the next row begins cannot be told, so all that follows is lost."
    return Piece(line, None, replace(told, reason=told.reason + lost, text=text)), found


def _behind_row(window: Window, mark: str) -> Piece | None:
    """Go behind the comma that follows a row of an array, or say that there is none."""
    sign = window.next_sign()
    if sign == ",":
        window.go_to(window.place + 1)
        return None
    if sign in ("", "]"):
        return None
    line, column = window.line, window.column
    text = "" if sign == "{" else window.skip_to(mark)[1]
    reason = "not valid JSON (Expecting ',' or ']' after a row). Each row should be one JSON object."
    return Piece(line, None, BadRow(line, column, reason, text))


def _behind_end(window: Window, mark: str) -> tuple[list[Piece], bool]:
    """Go behind the bracket that ends an array. Says what is wrong there, and whether a row follows all the same, to which it goes."""
    window.go_to(window.place + 1)
    sign, line, column = window.next_sign(), window.line, window.column
    if not sign:
        return [rest_is_lost(line, window.cut)] if window.cut is not None else [], False
    found, text = (True, "") if mark and sign == "{" and column == len(mark) - 1 else window.skip_to(mark)
    told = [Piece(line, None, BadRow(line, column, "text after the end of the JSON array. Remove the bracket, or the text.", text))]
    return told + ([rest_is_lost(window.line, window.cut)] if window.cut is not None and not found else []), found


def _literal_rows(path: Path, window: Window, place: int) -> list[Piece] | None:
    """The rows of a Python list of dict literals, or None where the file holds none. The window is at the first of them.

    place: where this row is no JSON.
    """
    if not window.text[window.place + place :].startswith(("'", "None", "True", "False", "(")):
        return None
    while not window.ended:
        window.more()
        if len(window.text) > LONGEST_LITERAL:
            raise UserError(
                f"{path}: a Python list of more than {LONGEST_LITERAL >> 20} MB, which can only be read as a whole. Save it as JSON lines."
            )
    rows = literal_rows("[" + window.text[window.place :]) if window.cut is None else None
    return None if rows is None else [Piece(line + window.line - 1, None, row, True) for line, row in rows]
