"""Files to rows: which files hold a data set, what stands in each line, and a hash of it all. NumPy is not even needed.

A file is JSON lines, one JSON array, one pretty-printed JSON object after another, or a table (``tables.py``); ``.gz`` and ``.zst`` are
unpacked, a byte order mark is skipped. Lines that are Python dict literals (single quotes) are read too, with one warning for the file.
"""

import ast
import gzip
import hashlib
import json
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddlealign.data.tables import TABLES, read_csv, read_table
from paddlealign.errors import UserError

PACKED = (".gz", ".zst")
_LITERAL_ERRORS = (ValueError, SyntaxError, RecursionError, MemoryError)


@dataclass(frozen=True)
class DoubledKey:
    """What stands in the place of a JSON object, or of the row around it, in which a key stands twice: one of the values would be lost."""

    key: str


@dataclass
class SourceFile:
    """The content of one data file.

    rows: (line, value) of every row, in order. problems: "file:line: what is wrong" of every row that cannot be read.
    literal_rows: how many rows were Python literals and not JSON. only_texts: whether the file has texts for numbers and lists, too (csv).
    """

    path: Path
    rows: list[tuple[int, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    literal_rows: int = 0
    only_texts: bool = False


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


def read_source(path: Path) -> SourceFile:
    """Read every row of a file. Rows that cannot be read are in ``problems``; a file that cannot is a UserError."""
    if not path.is_file():
        raise UserError(f"{path}: no such data file.")
    data, source = _unpacked(path), SourceFile(path)
    suffix = Path(path.stem if path.suffix in PACKED else path.name).suffix
    if suffix in TABLES:
        source.rows.extend(read_table(path, suffix, data))
        return source
    text = _decoded(path, data)
    if not text.strip():
        raise UserError(f"{path}: the file is empty. Each line of it should be one JSON object.")
    if suffix in (".csv", ".tsv"):
        source.only_texts = True
        source.rows.extend(read_csv(path, text, "," if suffix == ".csv" else "\t", source.problems))
    elif text.lstrip()[0] == "[":
        _read_array(text, source)
    else:
        _read_lines(text, source)
    return source


def _unpacked(path: Path) -> bytes:
    """The content of the file."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            return gzip.decompress(data)
        if path.suffix == ".zst":
            import pyarrow  # only those who have such files wait for it

            with pyarrow.CompressedInputStream(pyarrow.BufferReader(data), "zstd") as stream:
                return bytes(stream.read())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}.") from None
    return data


def _decoded(path: Path, data: bytes) -> str:
    """The text of a file, without a byte order mark."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path}: the file is UTF-16. Save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}). Save the file as UTF-8.") from None


def _read_lines(text: str, source: SourceFile) -> None:
    """JSON lines, with Python literals let through."""
    # Only "\n" ends a line: str.splitlines would also split at U+2028, which may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            source.rows.append((number, _DECODER.decode(line)))
            continue
        except (ValueError, RecursionError) as error:
            failure = error
        literal = _literal(line)
        if literal is not None:
            source.rows.append((number, literal))
            source.literal_rows += 1
            continue
        if not source.rows and not source.problems and _read_objects(text, source):
            return  # the first row does not end where its line ends: pretty-printed objects
        source.problems.append(_json_problem(source.path, number, failure))


def _read_objects(text: str, source: SourceFile) -> bool:
    """JSON objects one after another, each over several lines. Leaves the source alone and says False if it is not that."""
    rows, place, line, counted = [], 0, 1, 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            return False
        rows.append((line, value))
    source.rows.extend(rows)
    return True


def _read_array(text: str, source: SourceFile) -> None:
    """One JSON array of rows (or a Python list of dicts), with the line on which each row starts."""
    line, counted = 1, 0
    place = text.index("[") + 1
    while True:
        place = _skip_space(text, place)
        if place < len(text) and text[place] == "]":
            break
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = _DECODER.raw_decode(text, place)
            source.rows.append((line, value))
            place = _skip_space(text, place)
            if place < len(text) and text[place] == ",":
                place += 1
            elif place >= len(text) or text[place] != "]":
                raise json.JSONDecodeError("Expecting ',' or ']' after a row", text, place)
        except (ValueError, RecursionError) as error:
            if not _read_literal_list(text, source):
                number = getattr(error, "lineno", line)
                source.problems.append(_json_problem(source.path, number, error))
            return
    rest = _skip_space(text, place + 1)
    if rest < len(text):
        number = text.count("\n", 0, rest) + 1
        source.problems.append(f"{source.path}:{number}: text after the end of the JSON array.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | DoubledKey:
    """A JSON object, or word of a key that stands twice in it or in an object that it holds, in a list or not."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        return DoubledKey(next(key for key in keys if keys.count(key) > 1))
    items = (item for value in found.values() for item in (value if isinstance(value, list) else [value]))
    return next((item for item in items if isinstance(item, DoubledKey)), found)


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _skip_space(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _read_literal_list(text: str, source: SourceFile) -> bool:
    """A Python list of dict literals."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            body = ast.parse(text.strip(), mode="eval").body
        if not isinstance(body, ast.List):
            return False
        skipped = text[: text.index("[")].count("\n")
        rows = [(node.lineno + skipped, ast.literal_eval(node)) for node in body.elts]
    except _LITERAL_ERRORS:
        return False
    source.rows[:] = rows
    source.literal_rows = len(rows)
    return True


def _literal(line: str) -> dict[Any, Any] | None:
    """The line as a Python dict literal, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            value = ast.literal_eval(line.strip())
    except _LITERAL_ERRORS:
        return None
    return value if isinstance(value, dict) else None


def _json_problem(path: Path, line: int, error: Exception) -> str:
    column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
    reason = (
        error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply" if isinstance(error, RecursionError) else str(error)
    )
    return f"{path}:{line}{column}: not valid JSON ({reason}). Each row should be one JSON object."
