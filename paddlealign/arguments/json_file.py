"""Read an argument file, and say where and why when it is not plain JSON."""

import difflib
import json
import re
from pathlib import Path
from typing import Any, NoReturn

from paddlealign.arguments.given import Given
from paddlealign.errors import UserError

_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}


def read_argument_file(path: Path) -> list[Given]:
    """The keys of an argument file, in their order. JSON null is kept as None.

    Raises UserError for a file that is missing, not a file, not UTF-8, not JSON, not one object, or that has a key twice.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        raise UserError(
            f"{path}: only sft_main.py, reward_main.py and dpo_main.py read another tool's YAML. For a JSON file: "
            f"python -m paddlealign.convert {path} -o args.json"
        )
    text = read_text(path)
    twice: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                twice.append(key)
            seen[key] = value
        return seen

    def refuse_constant(word: str) -> NoReturn:
        line = _line_of_pattern(text, re.escape(word))
        raise UserError(f"{path}, line {line}: {word} is not a JSON value. Write a number, or null to leave the key unset.")

    try:
        content = json.loads(text, object_pairs_hook=collect, parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        raise UserError(_explain(path, text, error)) from None
    except RecursionError:
        raise UserError(f'{path}: the JSON is nested too deeply. An argument file is one flat object: {{"key": value, ...}}.') from None
    if not isinstance(content, dict):
        raise UserError(f'{path}: an argument file is one JSON object, {{"key": value, ...}}; this one is a {_kind(content)}.')
    if twice:
        key = twice[0]
        lines = list(dict.fromkeys(_lines_of_key(text, key)))
        places = f"lines {' and '.join(map(str, lines))}" if len(lines) > 1 else f"line {lines[0]}, twice" if lines else "twice"
        raise UserError(f"{path}: the key {key} stands there twice ({places}). Keep one of them.")
    return [Given(key, value, "file", f"{path}, line {(_lines_of_key(text, key) or [1])[0]}") for key, value in content.items()]


def read_text(path: Path) -> str:
    """The text of a file without a byte order mark, or a UserError that says what stands at the path."""
    if path.is_dir():
        raise UserError(f"{path} is a folder, not an argument file. Name a .json file, for example one in it.")
    if not path.exists():
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix in (".json", path.suffix)] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=1)
        hint = f"Did you mean {path.parent / near[0]}?" if near else "Check the path, or start from a file in scripts/llama/."
        raise UserError(f"The argument file {path} does not exist. {hint}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text. Save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


def _explain(path: Path, text: str, error: json.JSONDecodeError) -> str:
    """One line: file, line, column, what is wrong there and what to write instead."""
    at = error.pos
    while at < len(text) and text[at].isspace():
        at += 1
    before = text[:at].rstrip()
    rest = text[at:]
    comma = len(before) - 1 if before.endswith(",") else None
    word = re.match(r"[A-Za-z_]+", rest)
    if not text.strip():
        problem = 'the file is empty. Write {"key": value, ...}.'
    elif comma is not None and rest[:1] in ("}", "]"):
        at, problem = comma, f"a comma before the closing {rest[0]}. Remove the comma."
    elif rest.startswith(("//", "/*", "#")):
        problem = "a comment; JSON has none. Remove it."
    elif rest.startswith("'"):
        problem = "a single quote. Put text and keys in double quotes."
    elif rest[:1] in ("“", "”", "‘", "’"):
        problem = 'a typographic quote. Put text and keys in plain double quotes (").'
    elif word and word.group() in _PYTHON_WORDS:
        problem = f"{word.group()} is Python. In JSON write {_PYTHON_WORDS[word.group()]}."
    elif "control character" in error.msg or "Unterminated" in error.msg:
        problem = "the text that starts here has no closing double quote in its line."
        at = text.rfind('"', 0, error.pos) if "control" in error.msg else error.pos
    elif "Extra data" in error.msg:
        problem = "something follows the closing bracket of the object. An argument file is one object."
    elif "',' delimiter" in error.msg and rest:
        problem = "a comma is missing before this."
    elif not rest:
        problem = "the file ends too early. Is a closing } missing?"
    elif "property name" in error.msg:
        problem = "a key in double quotes must stand here."
    elif "Invalid \\escape" in error.msg:
        problem = r"a backslash in a text. Write \\ for one backslash, or / in paths."
    else:
        problem = f"{error.msg[0].lower()}{error.msg[1:]}."
    line, column = text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1
    return f"{path}, line {line}, column {column}: {problem}"


def _lines_of_key(text: str, key: str) -> list[int]:
    pattern = re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:"
    return [text.count("\n", 0, match.start()) + 1 for match in re.finditer(pattern, text)]


def _line_of_pattern(text: str, pattern: str) -> int:
    match = re.search(r":\s*" + pattern, text)
    return text.count("\n", 0, match.end()) + 1 if match else 1


def _kind(content: Any) -> str:
    if isinstance(content, list):
        return "list"
    return "text" if isinstance(content, str) else "single value"
