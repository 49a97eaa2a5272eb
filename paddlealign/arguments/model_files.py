"""Text and JSON files of a model's or a tokenizer's folder, which may be anyone's: none too large, nested too deeply, or ambiguous."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from paddlealign.errors import UserError

# The largest files known: tokenizer.json 35 MB, tokenizer.model 5 MB, an index of weights 20 MB, all others below 5 MB.
_MOST_BYTES = {"tokenizer.json": 256_000_000, "tokenizer.model": 64_000_000, "*.index.json": 256_000_000, "*": 32_000_000}
_DEEPEST = 100
_MOST_DIGITS = 300
_LONGEST_SHOWN = 200


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file whose top level is an object. Raises UserError where it is not, and as ``file_bytes`` does."""
    text = file_text(path)
    try:
        # In a vocabulary the last of two wins, as everywhere; and looking would double the time.
        pairs = None if path.name == "tokenizer.json" else _single_keys
        value = json.loads(text, object_pairs_hook=pairs, parse_int=_whole)
        deep = _is_deep(value)
    except json.JSONDecodeError as error:
        raise _invalid(path, f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        deep = True
    except ValueError as error:
        raise _invalid(path, str(error)) from None
    if deep:
        raise _invalid(path, f"nested more than {_DEEPEST} deep")
    if not isinstance(value, dict):
        raise UserError(f"{path}: found a {type(value).__name__}, a JSON object is needed.")
    return value


def _invalid(path: Path, why: str) -> UserError:
    return UserError(f"{path}: not valid JSON ({why}). Fetch the file anew from where the model comes.")


def _single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError where a key stands twice, of which each reader may take another."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shown(next(key for key in found if keys.count(key) > 1))} stands twice in one object")
    return found


def _whole(digits: str) -> int:
    """A whole number; ValueError for one that is no float. (transformers writes a model_max_length of 10 ** 30.)"""
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"the number {digits[:20]}... has {len(digits):,} digits")
    return int(digits)


def _is_deep(value: Any) -> bool:
    """Whether lists and objects stand in each other too deeply for whoever goes through them."""
    level = [value]
    for _ in range(_DEEPEST + 1):
        level = [item for it in level if isinstance(it, dict | list) for item in (it.values() if isinstance(it, dict) else it)]
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def file_text(path: Path) -> str:
    """A text file, without a byte order mark. Raises UserError as ``file_bytes`` does, and for what is not UTF-8."""
    try:
        return file_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise UserError(f"{path}: not UTF-8 ({where}). Fetch the file anew from where the model comes.") from None


def file_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises UserError where it is far larger than such files are, is empty, cannot be read, or only points to where
    the file lies.
    """
    most = next(size for pattern, size in _MOST_BYTES.items() if fnmatch(path.name, pattern))
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
            if len(data) > most:
                raise UserError(
                    f"{path}: has {path.stat().st_size:,} bytes, and no such file needs {most:,}. It is another file under this name, or "
                    "made to fill the memory; fetch it anew from where the model comes."
                )
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}.") from None
    if data.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{path}: a Git LFS pointer, not the file itself. In the folder that was cloned, run: git lfs install && git lfs pull"
        )
    if not data.strip():
        raise UserError(f"{path}: the file is empty ({len(data)} bytes). Fetch it anew from where the model comes.")
    return data


def shown(value: Any) -> str:
    """A value as JSON for a message, cut short."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 4] + " ..."
