"""Bad rows: what a user is told about them, and the file that they are kept in when they are skipped."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paddlealign.errors import UserError

SHOWN_PROBLEMS = 5


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
    listed = "\n  ".join(f"{row.source}: {row.reason}" for row in first[:SHOWN_PROBLEMS])
    more = f"\n  ... and {count - SHOWN_PROBLEMS:,} more" if count > SHOWN_PROBLEMS else ""
    noun, them = ("row is", "it") if count == 1 else ("rows are", "them")
    raise UserError(
        f"{count:,} data {noun} wrong (of {rows:,}):\n  {listed}{more}\n"
        f"Allowed rows: {allowed}. Mend or remove {them}, or set on_bad_row to skip: then bad rows are left out, counted, and kept in a "
        "file of refused rows."
    )


def describe_refusals(name: str, refused: Sequence[RefusedRow]) -> list[str]:
    """Lines that say how many rows were skipped, by reason with the first place. name: of the rows, in front of each line."""
    groups: dict[str, list[RefusedRow]] = {}
    for row in refused:
        groups.setdefault(_kind(row.reason), []).append(row)
    ordered = sorted(groups.values(), key=len, reverse=True)
    lines = [f"{name}: skipped {len(rows):,} bad: {rows[0].reason} (first: {rows[0].source})" for rows in ordered[:SHOWN_PROBLEMS]]
    rest = ordered[SHOWN_PROBLEMS:]
    return lines + ([f"{name}: skipped {sum(map(len, rest)):,} bad for {len(rest):,} other reasons"] if rest else [])


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
