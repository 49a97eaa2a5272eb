"""Rows out of tables: parquet, arrow and csv files, by the pyarrow and csv libraries. Rows of the first two are counted, not lines."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paddlealign.data.json_values import bad_byte, not_utf8
from paddlealign.data.pieces import KEPT_TEXT, LONGEST_ROW, BadRow, Blocks, Cut, Piece, byte_lines, rest_is_lost
from paddlealign.data.row_bytes import reason_of, seekable
from paddlealign.errors import UserError

TABLES = (".parquet", ".arrow")
TEXT_TABLES = {".csv": ",", ".tsv": "\t"}
# So many rows of a table are Python objects at a time.
_AT_ONCE = 256
_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def table_pieces(path: Path, suffix: str) -> Iterator[Piece]:
    """The rows of a parquet or arrow file, numbered from 1, batch by batch. Raises UserError where it is none."""
    import pyarrow  # takes a third of a second, which only those pay who have such files

    number = 0
    errors = (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError)
    try:
        with seekable(path) as file:
            for batch in _batches(file, suffix):
                for start in range(0, batch.num_rows, _AT_ONCE):
                    for row in _rows(batch.slice(start, _AT_ONCE), errors):
                        number += 1
                        yield Piece(number, None, row if isinstance(row, dict) else BadRow(number, None, f"cannot be read: {row}.", ""))
    except errors as error:
        reason = reason_of(error)
        if not number:
            raise UserError(f"{path}: cannot be read as {suffix[1:]}: {reason}.") from None
        yield rest_is_lost(number + 1, Cut(reason))


def _batches(file: Any, suffix: str) -> Iterator[Any]:
    from pyarrow import ipc, parquet

    if suffix == ".parquet":
        yield from parquet.ParquetFile(file).iter_batches(batch_size=4 * _AT_ONCE)
        return
    start = file.read(6)
    file.seek(0)
    if start == b"ARROW1":
        with ipc.open_file(file) as reader:
            yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        with ipc.open_stream(file) as reader:
            yield from reader


def _rows(batch: Any, errors: tuple[type[Exception], ...]) -> Iterator[dict[str, Any] | str]:
    """The rows of a batch; what is wrong where one cannot be read, unless it is the only one."""
    try:
        batch.validate(full=True)  # a damaged arrow file has offsets into nowhere, and reading there ends the process
        yield from [{key: plain(value) for key, value in row.items()} for row in batch.to_pylist()]
    except errors as error:
        if batch.num_rows == 1:
            yield reason_of(error)
        else:
            half = batch.num_rows // 2
            yield from _rows(batch.slice(0, half), errors)
            yield from _rows(batch.slice(half), errors)


def plain(value: Any) -> Any:
    """A value as JSON has it. In a struct that is no whole row, a null is a key that this value does not have."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def csv_pieces(path: Path, blocks: Blocks, delimiter: str) -> Iterator[Piece]:
    """The rows of a csv file, whose first line names the columns; every cell is a text.

    Behind a row that is none, such as one with a quote that nothing closes, the next line is tried. Raises UserError where the first
    line cannot be read, or two columns have one name.
    """
    csv.field_size_limit(LONGEST_ROW)  # the library's own limit is 128 kB a cell; it can only be set for the process
    names: list[str] = []
    for line, text, cells in _csv_rows(blocks, delimiter):
        bad = bad_byte(text)
        if bad is not None and not isinstance(cells, BadRow):
            number = line + text.count("\n", 0, bad)
            column = len(text[:bad].rpartition("\n")[2].encode(errors="surrogateescape")) + 1
            cells = not_utf8(number, column, ord(text[bad]) - 0xDC00, text)
        if isinstance(cells, BadRow):
            if not names:
                raise UserError(f"{cells.at(path)}: {cells.reason} This line should name the columns.")
            yield Piece(line, None, cells)
        elif not cells:
            continue
        elif not names:
            names = cells
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise UserError(f'{path}:{line}: two columns are called "{twice}".')
        elif len(cells) != len(names):
            reason = f"{len(cells)} cells; the first line names {len(names)} columns. Quote cells that hold the delimiter or a line break."
            yield Piece(line, None, BadRow(line, None, reason, text[:KEPT_TEXT]))
        else:
            yield Piece(line, None, dict(zip(names, cells, strict=True)))


def _csv_rows(blocks: Blocks, delimiter: str) -> Iterator[tuple[int, str, list[str] | BadRow]]:
    """(first line, text, cells) of each row."""
    lines = _text_lines(blocks)
    again: list[tuple[int, str]] = []  # lines behind a row's first that are to be read anew, the next one last
    taken: list[tuple[int, str]] = []
    lost: list[BadRow] = []

    def feed() -> Iterator[str]:
        while True:
            item = again.pop() if again else next(lines, None)
            if item is None:
                return
            if isinstance(item, BadRow):
                lost.append(item)
                return
            taken.append(item)
            yield item[1]

    while True:
        reader = csv.reader(feed(), delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                yield taken[0][0], "".join(text for _, text in taken), cells
                taken.clear()
        except csv.Error as error:
            line, text = taken[0]
            yield (
                line,
                text,
                BadRow(line, None, f"not valid csv ({error}). A quote inside a quoted cell is written twice.", text[:KEPT_TEXT]),
            )
            again.extend(reversed(taken[1:]))
            taken.clear()
            continue
        if not lost:
            return
        yield from [(bad.line, "", bad) for bad in lost]
        lost.clear()


def _text_lines(blocks: Blocks) -> Iterator[tuple[int, str] | BadRow]:
    """(number, text) of each line, with its end: a line feed, or a carriage return as old files have it."""
    number = 0
    for item in byte_lines(blocks):
        if isinstance(item, Piece):
            yield item.value
            continue
        for text in _LINES.findall(item[1].decode("utf-8", "surrogateescape")):
            number += 1
            yield number, text
