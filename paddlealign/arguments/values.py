"""Turn a given value into the type that its key has, strictly."""

import math
from collections.abc import Sequence
from typing import Any, Union, get_args, get_origin

_TRUE = {"true", "t", "yes", "y", "1"}
_FALSE = {"false", "f", "no", "n", "0"}


def plain_kind(annotation: Any) -> type:
    """bool, int, float, str or list for a dataclass field's annotation, Optional or not."""
    if get_origin(annotation) is Union:
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    kind = get_origin(annotation) or annotation
    if kind not in (bool, int, float, str, list):
        raise TypeError(f"no rule to read a value of type {annotation}")
    return kind


def convert(value: Any, kind: type, *, typed: bool, choices: Sequence[str] = ()) -> Any:
    """The value as ``kind``. Raises ValueError whose text goes on from "key: ".

    typed: the value comes from JSON, where a number or a boolean in quotes is a mistake; on a command line all is text.
    """
    if kind is list:
        items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in items):
            raise ValueError(f"{show(value)} is not allowed; a text, or a list of texts, is needed.")
        return [item.strip() for item in items if item.strip()]
    if isinstance(value, (list, dict)):
        raise ValueError(f"{show(value)} is a {'list' if isinstance(value, list) else 'JSON object'}; {_needed(kind, choices)} is needed.")
    if kind is str:
        return _to_text(value, choices)
    if typed and isinstance(value, str):
        raise ValueError(f"{show(value)} is a text; {_needed(kind, choices)} is needed{_without_quotes(value, kind)}.")
    if kind is bool:
        return _to_bool(value)
    if isinstance(value, bool):
        raise ValueError(f"{show(value)} is not allowed; {_needed(kind, choices)} is needed.")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{show(value)} is not allowed; {_needed(kind, choices)} is needed.") from None
    if not math.isfinite(number):
        raise ValueError(f"{show(value)} is not allowed; a finite number is needed.")
    if kind is float:
        return number
    if number != int(number):
        raise ValueError(f"{show(value)} is not allowed; a whole number is needed.")
    try:
        return int(value)  # keeps every digit of a large seed
    except ValueError:
        return int(number)


def comma_text(value: Any) -> Any:
    """A list of texts or numbers, or one number, as a text with commas; anything else as it is."""
    items = value if isinstance(value, list) else [value]
    return value if any(isinstance(item, bool | dict | list) for item in items) else ",".join(map(str, items))


def show(value: Any) -> str:
    """A value as JSON writes it, without quotes only where it is no text."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    return f'"{value}"' if isinstance(value, str) else str(value)


def joined(names: Sequence[str], word: str) -> str:
    """Names as a sentence has them: "a", "a or b", "a, b or c" for the word "or"."""
    return f" {word} ".join([part for part in (", ".join(names[:-1]), names[-1]) if part])


def _to_text(value: Any, choices: Sequence[str]) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{show(value)} is not allowed; {_needed(str, choices)} is needed.")
    if choices and value not in choices:
        raise ValueError(f"{show(value)} is not allowed; allowed: {', '.join(choices)}.")
    return value


def _to_bool(value: Any) -> bool:
    word = str(value).lower()
    if isinstance(value, bool) or (isinstance(value, str) and word in _TRUE | _FALSE):
        return word in _TRUE
    raise ValueError(f"{show(value)} is not allowed; allowed: true, false.")


def _needed(kind: type, choices: Sequence[str]) -> str:
    if choices:
        return f"one of {', '.join(choices)}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text in double quotes"}[kind]


def _without_quotes(value: str, kind: type) -> str:
    try:
        fixed = convert(value, kind, typed=False)
    except ValueError:
        return ""
    return f": write {show(fixed)} without quotes"
