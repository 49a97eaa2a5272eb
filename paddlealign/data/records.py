"""Files to records, and plain words for the rows that are none.

A row that is malformed stops the run: a typing mistake in a data file must not silently cost rows. A row that is well formed but
cannot teach anything is refused and counted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paddlealign.data.columns import mapped, with_values
from paddlealign.data.example import Message, Record
from paddlealign.data.message_rows import BadRowError, read_tools, type_of
from paddlealign.data.row_forms import PLAIN_PAIRS, ROW_FORMS, RowForm, detect, form_named, forms_of, usual_form
from paddlealign.data.row_parts import Parsed
from paddlealign.data.sources import DoubledKey, read_source
from paddlealign.errors import UserError

SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class RowReading:
    """How rows are read, beyond their kind.

    row_form: a name of ``row_forms``, or "auto": each file's is found from its rows. pairs: of ranked answers, see ``ranked_forms``.
    columns: our name of a column -> the file's. system_prompt: for rows without a system message of their own.
    """

    row_form: str = "auto"
    pairs: str = "best_worst"
    columns: Mapping[str, str] = field(default_factory=dict)
    system_prompt: str | None = None


@dataclass(frozen=True)
class ReadReport:
    """What was read. ``rows`` counts rows of the files, ``records`` what became of them (a row with n answer pairs gives n).

    used: rows that gave a record; the others gave a reason each. refused: reason -> number of pairs that were left out.
    refused_at: reason -> "file:line" of the first. forms: form -> rows that have it. warnings: one line each, for the user.
    """

    files: tuple[Path, ...]
    rows: int
    used: int
    records: int
    refused: dict[str, int]
    refused_at: dict[str, str]
    forms: dict[str, int]
    warnings: tuple[str, ...]


def read_records(paths: Sequence[Path], kind: str, reading: RowReading | None = None) -> tuple[list[Record], ReadReport]:
    """Read the rows of some files as records of a kind: "sft", "preference", "labelled", "prompt", "answered" or "held_out".

    Raises UserError with the first bad rows by file and line, and their number, if there is any.
    """
    pairs, report = read_rows(paths, kind, reading)
    return [record for _, record in pairs], report


def read_rows(
    paths: Sequence[Path], kind: str, reading: RowReading | None = None
) -> tuple[list[tuple[dict[str, Any], Record]], ReadReport]:
    """As ``read_records``, with the row as it stood in the file beside each record (predict writes it back)."""
    if not paths:
        raise UserError("No data file was given. Set dataset_name_or_path to a data file or a folder that holds train.json.")
    how = reading or RowReading()
    asked = None if how.row_form == "auto" else form_named(how.row_form, kind, how.pairs)
    known = forms_of(kind, how.pairs)
    result: list[tuple[dict[str, Any], Record]] = []
    problems: list[str] = []
    refused: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    notes: list[str] = []
    first_refused: dict[str, str] = {}
    rows = used = 0
    for path in paths:
        source = read_source(Path(path))
        problems += source.problems
        if source.literal_rows:
            notes.append(f"{path}: {source.literal_rows} rows are Python literals in single quotes, not JSON; read as they are meant.")
        first: RowForm | None = asked
        others: dict[str, list[str]] = {}
        for line, row in source.rows:
            rows += 1
            where = f"{path}:{line}"
            try:
                fields = mapped(_object(row), how.columns)
                fields = with_values(fields) if source.only_texts else fields
                form = asked or detect(known, fields) or first or usual_form(known, kind)
                first = first or form
                if form.name != first.name:
                    others.setdefault(form.name, []).append(where)
                records, reasons = _checked(fields, where, form, how.system_prompt)
            except BadRowError as error:
                problems.append(f"{where}: {error}{_other_command(row, kind)}")
                continue
            forms[form.name] += 1
            used += bool(records)
            refused.update(reasons)
            first_refused = dict.fromkeys(reasons, where) | first_refused
            result += [(row, record) for record in records]
        notes += [
            f"{places[0]}: the first of {len(places):,} rows in the {name} form; the first rows of the file are in the {first.name} form"
            for name, places in others.items()
            if first
        ]
    _raise_problems(problems, rows, kind)
    if not result:
        why = "; ".join(f"{count} x {reason}, first at {first_refused[reason]}" for reason, count in refused.items()) or "there are none"
        raise UserError(f"{paths[0]}: no usable row ({why}). Allowed: {ROW_FORMS[kind]}.")
    return result, ReadReport(tuple(paths), rows, used, len(result), dict(refused), first_refused, dict(forms), tuple(notes))


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


def _object(row: object) -> dict[str, Any]:
    if isinstance(row, DoubledKey):
        raise BadRowError(f'the key "{row.key}" stands twice in one object; which of its values is meant?')
    if not isinstance(row, dict):
        raise BadRowError(f"found a {type_of(row)}, a row is a JSON object.")
    return row


def _checked(row: dict[str, Any], where: str, form: RowForm, system_prompt: str | None) -> Parsed:
    records, reasons = form.parse(row, where)
    tools = read_tools(row.get("tools"))
    return [replace(_with_system_prompt(record, system_prompt), tools=tools) for record in records], reasons


def _with_system_prompt(record: Record, text: str | None) -> Record:
    """The record behind a system message, where it has a prompt and no system message of its own."""
    if not text or not record.messages or record.messages[0].role == "system":
        return record
    return replace(record, messages=(Message("system", text), *record.messages))


def _other_command(row: object, kind: str) -> str:
    """Which command reads a row that has the form of another kind."""
    if not isinstance(row, dict):
        return ""
    pair = detect(forms_of("preference", "best_worst"), row) if kind == "sft" else None
    if pair:
        name = "pairs" if pair.name in PLAIN_PAIRS else pair.name
        return f" Use dpo_main.py or reward_main.py for such rows. (To train on the chosen answers alone, set row_form to {name}.)"
    if kind in ("sft", "preference") and {"completion", "label"} <= row.keys():
        return " Use dpo_main.py with loss_type kto for such rows."
    if kind == "preference" and not row.keys() & {"chosen", "rejected", "response", "sort"} and row.keys() & {"tgt", "messages"}:
        return " Use sft_main.py for such rows."
    return ""
