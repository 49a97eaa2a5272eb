"""What stands at a place of a data file: a row that is not looked into yet, or word of why there is none."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Of a bad row so many characters are kept, for the file of refused rows.
KEPT_TEXT = 1_000_000
# A row that does not end within so many bytes is refused: what bounds the memory is the longest row.
LONGEST_ROW = 1 << 28


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used. line, column: where the mistake is, from 1; the column is None where it is the row as a whole.

    reason: what is wrong, and what is allowed or the fix. text: the row as it stands in the file, up to ``KEPT_TEXT`` characters.
    """

    line: int
    column: int | None
    reason: str
    text: str

    def at(self, path: object) -> str:
        """The place: "file:line:column", or "file:line" where the row is meant as a whole."""
        return f"{path}:{self.line}" + (f":{self.column}" if self.column is not None else "")


@dataclass(frozen=True)
class Piece:
    """What stands at a place of a file. Cheap to make and to pickle: a JSON line is decoded by ``sources.row_of``, in whatever process.

    line: of the file; the number of the row in parquet and arrow files; both from 1. raw: the bytes of a JSON line, its line end included.
    value: where raw is None, the row, or a BadRow. literal: whether that row was a Python literal.
    """

    line: int
    raw: bytes | None
    value: Any = None
    literal: bool = False


def raw_text(piece: Piece) -> str:
    """The text of a piece that is a line; "" for others."""
    return (piece.raw or b"").decode(errors="surrogateescape").rstrip("\r\n")[:KEPT_TEXT]


@dataclass(frozen=True)
class Cut:
    """The last of a file's blocks where the file cannot be read to its end. reason: why, without a full stop."""

    reason: str


Blocks = Iterator[bytes | Cut]


def rest_is_lost(line: int, cut: Cut, text: str = "") -> Piece:
    """The piece that stands for all that cannot be read any more."""
    reason = f"cannot be read on from here: {cut.reason}. What follows is lost; get the file anew, or pack it anew."
    return Piece(line, None, BadRow(line, None, reason, text[:KEPT_TEXT]))


def byte_lines(blocks: Blocks) -> Iterator[tuple[int, bytes] | Piece]:
    """(number, bytes) of each line with its line end, which is a line feed; a Piece for a line that is too long and for what is cut off."""
    number, pending, size = 1, list[bytes](), 0
    for block in blocks:
        if isinstance(block, Cut):
            yield rest_is_lost(number, block, b"".join(pending).decode(errors="surrogateescape"))
            return
        start = 0
        while True:
            end = block.find(b"\n", start) + 1
            part = block[start:end] if end else block[start:]
            size += len(part)
            if size <= LONGEST_ROW:
                pending.append(part)
            if not end:
                break
            yield (number, b"".join(pending)) if size <= LONGEST_ROW else _too_long(number, pending)
            number, pending, size, start = number + 1, [], 0, end
    if size:
        yield (number, b"".join(pending)) if size <= LONGEST_ROW else _too_long(number, pending)


def _too_long(line: int, start: list[bytes]) -> Piece:
    text = b"".join(start)[:KEPT_TEXT].decode(errors="surrogateescape")
    return Piece(line, None, BadRow(line, None, f"the line is longer than {LONGEST_ROW >> 20} MB. A row is one line; split it.", text))
