"""Bad rows: what a user is told about them, and the file that they are kept in when they are skipped."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from paddlealign.data.pieces import BadRow
from paddlealign.errors import UserError

SHOWN_PROBLEMS = 5
_BLOCK = 1 << 20


@dataclass(frozen=True)
class RefusedRow:
    """A bad row. source: "file:line:column". row: its text as it stands in the file, up to ``pieces.KEPT_TEXT`` characters."""

    source: str
    reason: str
    row: str


def raise_refusals(first: Sequence[RefusedRow], count: int, rows: int, allowed: str) -> None:
    """Raise UserError where there are bad rows. first: the first of so many. rows: how many were read. allowed: the forms of rows."""
    if not count:
        return
    listed = [f"{row.source}: {row.reason}" for row in first[:SHOWN_PROBLEMS]]
    if count > SHOWN_PROBLEMS:
        listed.append(f"... and {count - SHOWN_PROBLEMS:,} more")
    lines, one = "\n  ".join(listed), count == 1
    raise UserError(
        f"{count:,} data {'row is' if one else 'rows are'} wrong (of {rows:,}):\n  {lines}\n"
        f"Allowed rows: {allowed}. Columns of other names are named by prompt_key, chosen_key and their kin. "
        f"Mend or remove {'it' if one else 'them'}, or set on_bad_row to skip: then bad rows are left out, counted, and kept in a file of "
        "refused rows."
    )


def describe_refusals(name: str, refused: Sequence[RefusedRow]) -> list[str]:
    """Lines that say how many rows were skipped, by reason with the first place. name: of the rows, in front of each line."""
    first: dict[str, RefusedRow] = {}
    counts: Counter[str] = Counter()
    for row in refused:  # one by one: what is kept on disk is not held as a whole
        kind = _kind(row.reason)
        counts[kind] += 1
        first.setdefault(kind, replace(row, row=""))
    ordered = counts.most_common()
    lines = [
        f"{name}: skipped {count:,} bad: {first[kind].reason} (first: {first[kind].source})" for kind, count in ordered[:SHOWN_PROBLEMS]
    ]
    rest = [count for _, count in ordered[SHOWN_PROBLEMS:]]
    return lines + ([f"{name}: skipped {sum(rest):,} bad for {len(rest):,} other reasons"] if rest else [])


def _kind(reason: str) -> str:
    """A reason without what stands in the row."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|[0-9]+", "*", reason)


def write_refusals(path: Path, refused: Sequence[RefusedRow]) -> None:
    """Write the skipped rows as JSON lines {source, reason, row}; where there are none, there is no file.

    Half a surrogate pair, and a byte that is no UTF-8, stand in it as JSON's escapes.
    """
    path.unlink(missing_ok=True)
    if not refused:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for row in refused:
            line = json.dumps({"source": row.source, "reason": row.reason, "row": row.row}, ensure_ascii=False)
            file.write((line + "\n").encode("utf-8", errors="backslashreplace"))


@dataclass(frozen=True, eq=False)
class KeptRefusals(Sequence[RefusedRow]):
    """Bad rows that lie in files of a store, read where they are asked for.

    files: of each its bytes, uint8, and the paths of the files of rows. places: of each row its file, first byte and end.
    """

    files: tuple[tuple[np.ndarray, tuple[Path, ...]], ...]
    places: np.ndarray

    def __len__(self) -> int:
        """How many there are."""
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> RefusedRow: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[RefusedRow]: ...

    def __getitem__(self, index: int | slice) -> RefusedRow | Sequence[RefusedRow]:
        """One row, or a list of them."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        file, start, end = self.places[index]
        content, paths = self.files[file]
        kept = json.loads(content[start:end].tobytes())
        bad = BadRow(kept["line"], kept["column"], kept["reason"], kept["text"])
        return RefusedRow(bad.at(paths[kept["file"]]), bad.reason, bad.text)


def kept_refusals(files: Iterable[tuple[np.ndarray, tuple[Path, ...]]]) -> KeptRefusals:
    """The rows of files as ``StoreWriter`` writes them; see ``KeptRefusals``."""
    found, places = tuple(files), [np.zeros((0, 3), np.int64)]
    for number, (content, _) in enumerate(found):
        blocks = range(0, len(content), _BLOCK)
        ends = np.concatenate(
            [np.zeros(0, np.int64), *(start + 1 + np.flatnonzero(content[start : start + _BLOCK] == 10) for start in blocks)]
        )
        places.append(np.stack([np.full(len(ends), number), np.append(0, ends[:-1])[: len(ends)], ends], axis=1))
    return KeptRefusals(found, np.concatenate(places))


def keep(file: int, bad: BadRow) -> str:
    """A bad row as a line for ``kept_refusals``. file: the number of its file."""
    return json.dumps({"file": file, **asdict(bad)}) + "\n"
