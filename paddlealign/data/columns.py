"""Columns that a file calls otherwise: from its names to those that the forms of rows know."""

import ast
import json
from collections.abc import Mapping
from typing import Any

from paddlealign.data.message_rows import BadRowError
from paddlealign.data.row_parts import found_keys

KEYS = {
    "prompt": "prompt_key",
    "response": "response_key",
    "chosen": "chosen_key",
    "rejected": "rejected_key",
    "messages": "messages_key",
    "system": "system_prompt_key",
}
_MAY_BE_MISSING = ("system",)
# Columns of which no form wants a text.
_NO_TEXTS = (
    "messages", "conversations", "tools", "label", "labels", "margin", "sort", "scores", "score_A", "score_B", "completions", "responses",
    "answers",
)  # fmt: skip


def mapped(row: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row with each column under our name; a column that bore this name already is not read. Raises BadRowError.

    columns: our name -> the file's.
    """
    if not columns:
        return row
    rest = {key: value for key, value in row.items() if key not in columns and key not in columns.values()}
    for ours, theirs in columns.items():
        if theirs in row:
            rest[ours] = row[theirs]
        elif ours not in _MAY_BE_MISSING:
            raise BadRowError(f"no {theirs!r}, which {KEYS[ours]} names for all files, dev too; found {found_keys(row)}.")
    return rest


def with_values(row: dict[str, Any]) -> dict[str, Any]:
    """A row of texts, with the values that stand in columns of which no form wants a text; an empty cell is none."""
    return {key: _value(cell) if key in _NO_TEXTS else cell for key, cell in row.items()}


def _value(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.strip():
        return None if isinstance(cell, str) else cell
    for read in (json.loads, ast.literal_eval):  # as Python writes lists and True, too
        try:
            return read(cell.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return cell
