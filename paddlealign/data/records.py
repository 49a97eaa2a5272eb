"""Files to records, and plain words for the rows that are none.

A row that is malformed stops the run, unless the user has it skipped: a typing mistake in a data file must not silently cost rows. A row
that is well formed but cannot teach anything is refused and counted.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paddlealign.data.columns import mapped, with_values
from paddlealign.data.example import Message, Record
from paddlealign.data.json_values import DoubledKey
from paddlealign.data.message_rows import BadRowError, read_tools, type_of
from paddlealign.data.pieces import KEPT_TEXT, raw_text
from paddlealign.data.refusals import SHOWN_PROBLEMS, RefusedRow, raise_refusals
from paddlealign.data.row_forms import PLAIN_PAIRS, ROW_FORMS, RowForm, detect, form_named, forms_of, usual_form
from paddlealign.data.row_parts import Parsed
from paddlealign.data.sources import BadRow, only_texts, pieces, row_of
from paddlealign.errors import UserError


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

    used: rows that gave a record; skipped are bad, and the others gave a reason each. refused: reason -> number of pairs that were left
    out. refused_at: reason -> "file:line" of the first. forms: form -> rows that have it. warnings: one line each, for the user.
    """

    files: tuple[Path, ...]
    rows: int
    used: int
    records: int
    refused: dict[str, int]
    refused_at: dict[str, str]
    forms: dict[str, int]
    warnings: tuple[str, ...]
    skipped: Sequence[RefusedRow] = ()


@dataclass(frozen=True)
class RowOutcome:
    """What became of one row.

    form: the name of its form; None where it was too bad to have one. records, reasons: what it gave, and why pairs were left out. bad:
    what is wrong with it, if anything; then it gave neither.
    """

    form: str | None
    records: tuple[Record, ...] = ()
    reasons: tuple[str, ...] = ()
    bad: BadRow | None = None


@dataclass(frozen=True)
class RowRules:
    """By what rows of a kind are read, found once by ``row_rules``.

    asked: the form that the user names. known: those that a row may have.
    """

    kind: str
    reading: RowReading
    asked: RowForm | None
    known: tuple[RowForm, ...]


def row_rules(kind: str, reading: RowReading | None = None) -> RowRules:
    """The rules for a kind: "sft", "preference", "labelled", "prompt", "answered" or "held_out". Raises UserError for an unknown form."""
    how = reading or RowReading()
    asked = None if how.row_form == "auto" else form_named(how.row_form, kind, how.pairs)
    return RowRules(kind, how, asked, tuple(forms_of(kind, how.pairs)))


def read_row(rules: RowRules, row: object, where: str, first: str | None, texts: bool) -> RowOutcome:
    """What becomes of one row; nothing but the arguments counts, so that any process may ask.

    where: "file:line". first: the form of the first row of the file that has one, by which a row is judged that has none. texts: whether
    the file has texts for numbers and lists, too.
    """
    how = rules.reading
    name = None
    try:
        fields = mapped(_object(row), how.columns)
        fields = with_values(fields) if texts else fields
        form = rules.asked or detect(rules.known, fields) or _named(rules, first)
        name = form.name
        records, reasons = _checked(fields, where, form, how.system_prompt)
    except BadRowError as error:
        line = int(where.rpartition(":")[2])
        return RowOutcome(name, bad=BadRow(line, None, f"{error}{_other_command(row, rules.kind)}", _text_of(row)))
    return RowOutcome(name, tuple(records), tuple(reasons))


def _named(rules: RowRules, first: str | None) -> RowForm:
    return next((form for form in rules.known if form.name == first), None) or usual_form(rules.known, rules.kind)


def _text_of(row: object) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)[:KEPT_TEXT]


def read_records(
    paths: Sequence[Path], kind: str, reading: RowReading | None = None, on_bad_row: str = "error"
) -> tuple[list[Record], ReadReport]:
    """Read the rows of some files as records of a kind: "sft", "preference", "labelled", "prompt", "answered" or "held_out".

    on_bad_row: "error" raises UserError with the first bad rows by file and line, and their number; "skip" has them in the report.
    """
    pairs, report = read_rows(paths, kind, reading, on_bad_row)
    return [record for _, record in pairs], report


def read_rows(
    paths: Sequence[Path], kind: str, reading: RowReading | None = None, on_bad_row: str = "error"
) -> tuple[list[tuple[dict[str, Any], Record]], ReadReport]:
    """As ``read_records``, with the row as it stood in the file beside each record (predict writes it back)."""
    if not paths:
        raise UserError("No data file was given. Set dataset_name_or_path to a data file or a folder that holds train.json.")
    rules = row_rules(kind, reading)
    result: list[tuple[dict[str, Any], Record]] = []
    bad: list[RefusedRow] = []
    refused: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    notes: list[str] = []
    first_refused: dict[str, str] = {}
    rows = used = wrong = 0
    for path in map(Path, paths):
        others: dict[str, list[str]] = {}
        first, literals, texts = None, 0, only_texts(path)
        for piece in pieces(path):
            rows += 1
            where, found = f"{path}:{piece.line}", row_of(piece)
            outcome = RowOutcome(None, bad=found) if isinstance(found, BadRow) else read_row(rules, found[0], where, first, texts)
            first = first or outcome.form
            if outcome.form != first and outcome.form is not None:
                others.setdefault(outcome.form, []).append(where)
            if outcome.bad is not None:
                wrong += 1
                if on_bad_row == "skip" or wrong <= SHOWN_PROBLEMS:
                    bad.append(RefusedRow(outcome.bad.at(path), outcome.bad.reason, raw_text(piece) or outcome.bad.text))
                continue
            assert not isinstance(found, BadRow) and outcome.form is not None
            literals += found[1]
            forms[outcome.form] += 1
            used += bool(outcome.records)
            refused.update(outcome.reasons)
            first_refused = dict.fromkeys(outcome.reasons, where) | first_refused
            result += [(found[0], record) for record in outcome.records]
        if literals:
            notes.append(f"{path}: {literals} rows are Python literals in single quotes, not JSON; read as they are meant.")
        notes += [
            f"{places[0]}: the first of {len(places):,} rows in the {name} form; the first rows of the file are in the {first} form"
            for name, places in others.items()
        ]
    if on_bad_row == "error":
        raise_refusals(bad, wrong, rows, ROW_FORMS[kind])
    if not result:
        counts = [f"{count} x {reason}, first at {first_refused[reason]}" for reason, count in refused.items()]
        counts += [f"{len(bad)} x bad rows, which were skipped, first at {bad[0].source}: {bad[0].reason}"] if bad else []
        raise UserError(f"{paths[0]}: no usable row ({'; '.join(counts) or 'there are none'}). Allowed: {ROW_FORMS[kind]}.")
    report = ReadReport(tuple(paths), rows, used, len(result), dict(refused), first_refused, dict(forms), tuple(notes), tuple(bad))
    return result, report


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
