"""Rows out of tables: parquet, arrow and csv files, by the pyarrow and csv libraries. Rows of the first two are counted, not lines."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paddlealign.errors import UserError

TABLES = (".parquet", ".arrow")
_LONGEST_CELL = 2**31 - 1
Row = tuple[int, dict[str, Any]]


def read_table(path: Path, suffix: str, data: bytes) -> Iterator[Row]:
    """(number, row) of a parquet or arrow file, from 1. Raises UserError where it is none."""
    import pyarrow  # takes a third of a second, which only those pay who have such files
    from pyarrow import ipc, parquet

    buffer = pyarrow.BufferReader(data)
    number = 0
    try:
        if suffix == ".parquet":
            batches: Any = parquet.ParquetFile(buffer).iter_batches()
        elif data[:6] == b"ARROW1":
            file = ipc.open_file(buffer)
            batches = (file.get_batch(index) for index in range(file.num_record_batches))
        else:
            batches = ipc.open_stream(buffer)
        for batch in batches:
            batch.validate(full=True)  # a damaged arrow file has offsets into nowhere, and reading there ends the process
            for row in batch.to_pylist():
                number += 1
                yield number, {key: plain(value) for key, value in row.items()}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as {suffix[1:]}: {str(error).splitlines()[0]}.") from None


def plain(value: Any) -> Any:
    """A value as JSON has it. In a struct that is no whole row, a null is a key that this value does not have."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def read_csv(path: Path, text: str, delimiter: str, problems: list[str]) -> Iterator[Row]:
    """(line, row) of a csv file whose first line names the columns; every cell is a text. Rows that are none go to ``problems``."""
    csv.field_size_limit(_LONGEST_CELL)  # the library's own limit is 128 kB a cell; it can only be set for the process
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    names: list[str] = []
    try:
        for cells in lines:
            first, line = line, lines.line_num + 1
            if not cells:
                continue
            if not names:
                names = cells
                twice = next((name for name in names if names.count(name) > 1), None)
                if twice is not None:
                    raise UserError(f'{path}:{first}: two columns are called "{twice}".')
            elif len(cells) != len(names):
                problems.append(f"{path}:{first}: {len(cells)} cells; the first line names {len(names)} columns.")
            else:
                yield first, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        problems.append(f"{path}:{line}: not valid csv ({error}).")
