"""Rows that Python wrote with repr and not with json: dict literals in single quotes. Nothing in them is run.

Only what repr writes is read. ast.literal_eval would let mistakes pass: two texts side by side become one, and of a key that stands twice
the last value counts.
"""

import ast
import re
import warnings
from typing import Any

from paddlealign.data.json_values import json_object

ERRORS = (ValueError, SyntaxError, RecursionError, MemoryError)
_ONE_TEXT = re.compile(r"""'(?:[^'\\\x00-\x1f]|\\.)*'|"(?:[^"\\\x00-\x1f]|\\.)*\"""")


def literal_row(text: str) -> Any:
    """The text as a dict literal, as ``json_object`` gives it; None where it is none."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        body = _parsed(text)
        return _value(body, _lines(text.strip())) if isinstance(body, ast.Dict) else None  # with a comma behind it, it is a tuple
    except ERRORS:
        return None


def literal_rows(text: str) -> list[tuple[int, Any]] | None:
    """(line, row) of a list of dict literals, the lines counted from 1; None where it is none."""
    try:
        body, lines = _parsed(text), _lines(text.strip())
        if not isinstance(body, ast.List):
            return None
        skipped = text[: len(text) - len(text.lstrip())].count("\n")
        return [(node.lineno + skipped, _value(node, lines)) for node in body.elts]
    except ERRORS:
        return None


def _parsed(text: str) -> ast.expr:
    if "\\/" in text.replace("\\\\", ""):
        raise ValueError("JSON's escape of a slash, which repr does not write and Python reads otherwise")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that are none
        return ast.parse(text.strip(), mode="eval").body


def _lines(text: str) -> list[bytes]:
    return [line.encode() for line in re.split("\r\n|\r|\n", text)]  # as ast counts them


def _value(node: ast.expr, lines: list[bytes]) -> Any:
    """The value of a node. lines: of the text. Raises ValueError for what JSON has no form for."""
    if isinstance(node, ast.Dict):
        return json_object([(_key(key, lines), _value(value, lines)) for key, value in zip(node.keys, node.values, strict=True)])
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item, lines) for item in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand, lines)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError("a minus before what is no number")
        return -number
    if not isinstance(node, ast.Constant) or not (node.value is None or isinstance(node.value, str | bool | int | float)):
        raise ValueError("no literal that JSON has a form for")
    if isinstance(node.value, str) and not _ONE_TEXT.fullmatch(_source(node, lines)):
        raise ValueError("two texts side by side, or a control character that repr would write as an escape")
    return node.value


def _key(node: ast.expr | None, lines: list[bytes]) -> str:
    key = None if node is None else _value(node, lines)
    if not isinstance(key, str):
        raise ValueError("a key is no text")
    return key


def _source(node: ast.Constant, lines: list[bytes]) -> str:
    """What stands in the text for a node: offsets are in bytes."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    if first == last:
        return lines[first][node.col_offset : node.end_col_offset].decode()
    return b"\n".join([lines[first][node.col_offset :], *lines[first + 1 : last], lines[last][: node.end_col_offset]]).decode()
