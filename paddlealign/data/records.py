"""Files to records, and plain words for the rows that are none.

A row that is malformed stops the run: a typing mistake in a data file must not silently cost rows. A row that is well formed but
cannot teach anything is refused and counted.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paddlealign.data.example import Record
from paddlealign.data.message_rows import BadRowError, read_tools, type_of
from paddlealign.data.row_forms import PARSERS, ROW_FORMS, Parsed
from paddlealign.data.sources import read_source
from paddlealign.errors import UserError

SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class ReadReport:
    """What was read. ``rows`` counts rows of the files, ``records`` what became of them (a row with n answer pairs gives n).

    refused: reason -> number of pairs that were left out. warnings: one line each, for the user.
    """

    files: int
    rows: int
    records: int
    refused: dict[str, int]
    warnings: tuple[str, ...]


def read_records(paths: Sequence[Path], kind: str) -> tuple[list[Record], ReadReport]:
    """Read the rows of some files as records of a kind: "sft", "preference", "labelled", "prompt", "answered" or
    "held_out".

    Raises UserError with the first bad rows by file and line, and their number, if there is any.
    """
    pairs, report = read_rows(paths, kind)
    return [record for _, record in pairs], report


def read_rows(paths: Sequence[Path], kind: str) -> tuple[list[tuple[dict[str, Any], Record]], ReadReport]:
    """As ``read_records``, with the row as it stood in the file beside each record (predict writes it back)."""
    if not paths:
        raise UserError("No data file was given. Set dataset_name_or_path to a data file or a folder that holds train.json.")
    parse = PARSERS[kind]
    result: list[tuple[dict[str, Any], Record]] = []
    problems: list[str] = []
    refused: Counter[str] = Counter()
    notes: list[str] = []
    rows = 0
    for path in paths:
        source = read_source(Path(path))
        problems += source.problems
        if source.literal_rows:
            notes.append(f"{path}: {source.literal_rows} rows are Python literals in single quotes, not JSON; read as they are meant.")
        for line, row in source.rows:
            rows += 1
            where = f"{path}:{line}"
            try:
                records, reasons = _checked(row, where, parse)
            except BadRowError as error:
                problems.append(f"{where}: {error}{_other_command(row, kind)}")
                continue
            refused.update(reasons)
            result += [(row, record) for record in records]
    _raise_problems(problems, rows, kind)
    if not result:
        why = "; ".join(f"{count} x {reason}" for reason, count in refused.items()) or "there are none"
        raise UserError(f"{paths[0]}: no usable row ({why}). Allowed: {ROW_FORMS[kind]}.")
    return result, ReadReport(len(paths), rows, len(result), dict(refused), tuple(notes))


def _raise_problems(problems: list[str], rows: int, kind: str) -> None:
    if not problems:
        return
    first = "\n  ".join(problems[:SHOWN_PROBLEMS])
    more = f"\n  ... and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
    noun = "row is" if len(problems) == 1 else "rows are"
    raise UserError(
        f"{len(problems)} data {noun} wrong (of {max(rows, len(problems))}):\n  {first}{more}\n"
        f"Allowed rows: {ROW_FORMS[kind]}. Mend or remove them; none is skipped silently."
    )


def _checked(row: object, where: str, parse: Callable[[dict[str, Any], str], Parsed]) -> Parsed:
    if not isinstance(row, dict):
        raise BadRowError(f"found a {type_of(row)}, a row is a JSON object.")
    records, reasons = parse(row, where)
    tools = read_tools(row.get("tools"))
    return [replace(record, tools=tools) for record in records], reasons


def _other_command(row: object, kind: str) -> str:
    """Which command reads a row that has the form of another kind."""
    if not isinstance(row, dict):
        return ""
    pair = {"response", "sort"} <= row.keys() or {"chosen", "rejected"} <= row.keys()
    if kind == "sft" and pair:
        return " Use dpo_main.py or reward_main.py for such rows."
    if kind == "preference" and {"completion", "label"} <= row.keys():
        return " Use dpo_main.py with loss_type kto for such rows."
    if kind == "preference" and not row.keys() & {"chosen", "rejected", "response", "sort"} and row.keys() & {"tgt", "messages"}:
        return " Use sft_main.py for such rows."
    return ""
