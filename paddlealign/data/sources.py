"""Files to rows, one after another and never a whole file in memory; and a hash of what stands in files.

A file is JSON lines, one JSON array, one pretty-printed JSON object after another, or a table (``tables.py``); ``.gz`` and ``.zst`` are
unpacked, a byte order mark is skipped. Python dict literals (single quotes) are read too. Which of these a file is, its first row says.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from paddlealign.data import json_values as values
from paddlealign.data.json_stream import Window, is_objects, stream_pieces
from paddlealign.data.pieces import BadRow, Blocks, Cut, Piece, byte_lines
from paddlealign.data.python_literals import literal_row
from paddlealign.data.row_bytes import PACKED, blocks_of, check_file
from paddlealign.data.tables import TABLES, TEXT_TABLES, csv_pieces, table_pieces
from paddlealign.errors import UserError

_MARK = b"\xef\xbb\xbf"
# How files begin that are no rows as they are, and what helps.
_OTHER_FILES = {
    b"\x1f\x8b": "packed by gzip; give it the ending .gz",
    b"\x28\xb5\x2f\xfd": "packed by zstd; give it the ending .zst",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"BZh": "packed by bzip2; unpack it",
    b"\xfd7zXZ": "packed by xz; unpack it",
    b"PAR1": "a parquet file; give it the ending .parquet",
    b"ARROW1": "an arrow file; give it the ending .arrow",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself with git lfs pull",
    b"<!DOCTYPE": "HTML, not rows; an address may have given a page in place of the file",
    b"<html": "HTML, not rows; an address may have given a page in place of the file",
}


def data_hash(paths: Sequence[Path]) -> str:
    """The sha256 (hex) of the contents of the files, in the order given. Names and dates do not count."""
    total = hashlib.sha256()
    for path in paths:
        one = hashlib.sha256()
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                one.update(block)
        total.update(one.digest())
    return total.hexdigest()


def pieces(path: Path) -> Iterator[Piece]:
    """What stands in a file, row by row; memory: that of its longest row. Raises UserError, at the first, where it is no file of rows.

    What cannot be read is a piece too, with a BadRow. No row is passed over; an empty line is none.
    """
    check_file(path)
    suffix = _suffix(path)
    if suffix in TABLES:
        yield from table_pieces(path, suffix)
        return
    blocks, first = _begun(path, blocks_of(path))
    if suffix in TEXT_TABLES:
        yield from csv_pieces(path, blocks, TEXT_TABLES[suffix])
    elif first == b"[":
        yield from stream_pieces(path, Window(blocks), array=True)
    else:
        seen: list[bytes | Cut] = []
        objects = is_objects(Window(_remembered(blocks, seen)))
        blocks = chain(seen, blocks)
        yield from stream_pieces(path, Window(blocks), array=False) if objects else _lines(blocks)


def row_of(piece: Piece) -> tuple[Any, bool] | BadRow:
    """The row of a piece, and whether it was a Python literal; or what is wrong with it."""
    if piece.raw is not None:
        return _row_of_line(piece.line, piece.raw)
    return piece.value if isinstance(piece.value, BadRow) else (piece.value, piece.literal)


def only_texts(path: Path) -> bool:
    """Whether the file has texts for numbers and lists, too (csv)."""
    return _suffix(path) in TEXT_TABLES


def _row_of_line(line: int, raw: bytes) -> tuple[Any, bool] | BadRow:
    """The value of a line of a file, and whether it was a Python literal; or what is wrong with it. raw: with the line's end."""
    try:
        whole = raw.decode("utf-8").removeprefix("\ufeff")  # in the middle of files that were put together
    except UnicodeDecodeError as error:
        cut = error.reason == "unexpected end of data" and error.end == len(raw)
        bad = raw.decode("utf-8", "surrogateescape")
        return values.unfinished(line, None, bad) if cut else values.not_utf8(line, error.start + 1, raw[error.start], bad)
    text = whole.rstrip("\r\n")
    try:
        value = values.DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        literal = literal_row(text)
        if literal is not None:
            return (literal, True) if not values.too_deep(literal, text) else values.too_deeply(line, text)
        if text == whole and values.breaks_off(error, text[getattr(error, "pos", 0) :]):
            return values.unfinished(line, error, text)
        return values.no_json(line, getattr(error, "colno", None), error, text, getattr(error, "pos", 0))
    return values.too_deeply(line, text) if values.too_deep(value, text) else (value, False)


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix in PACKED else path.name).suffix


def _lines(blocks: Blocks) -> Iterator[Piece]:
    """JSON lines. Only a line feed ends one: U+2028, at which str.splitlines splits too, may stand inside a JSON string."""
    for item in byte_lines(blocks):
        if isinstance(item, Piece):
            yield item
        elif item[1].strip():
            yield Piece(*item)


def _begun(path: Path, blocks: Blocks) -> tuple[Blocks, bytes]:
    """The blocks without a byte order mark, and the first byte that is no space. Raises UserError for an empty file, and for UTF-16."""
    start = b""
    kept: list[bytes | Cut] = []
    for block in blocks:
        kept.append(block)
        if isinstance(block, Cut):
            break
        if len(start) < 4:
            start += block[:4]
        if len(start) >= 4 and block.strip():
            break
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or (len(start) >= 2 and start[:2].strip(b"\0") in (b"{", b"[") and b"\0" in start[:2]):
        raise UserError(f"{path}: the file is UTF-16. Save it as UTF-8.")
    head = b"".join(block for block in kept if isinstance(block, bytes))[:64].lstrip()
    other = next((said for sign, said in _OTHER_FILES.items() if head.startswith(sign)), None)
    if other:
        raise UserError(f"{path}: the file is {other}.")
    if isinstance(kept[0] if kept else None, bytes) and start.startswith(_MARK):
        kept = _without(kept, len(_MARK))
    first = b"".join(block[:1] for block in (block.lstrip() for block in kept if isinstance(block, bytes)))[:1]
    if not first and not any(isinstance(block, Cut) for block in kept):
        raise UserError(f"{path}: the file is empty. Each line of it should be one JSON object.")
    return chain(kept, blocks), first


def _without(blocks: list[bytes | Cut], count: int) -> list[bytes | Cut]:
    """The blocks without so many bytes at the start."""
    rest: list[bytes | Cut] = []
    for block in blocks:
        if isinstance(block, Cut):
            rest.append(block)
        else:
            rest.append(block[count:])
            count -= min(count, len(block))
    return rest


def _remembered(blocks: Blocks, seen: list[bytes | Cut]) -> Blocks:
    """The same blocks, each put into a list as it passes."""
    for block in blocks:
        seen.append(block)
        yield block
