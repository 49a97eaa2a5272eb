"""Single values out of a model directory's JSON files, each checked, and refused by its key and file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddlealign.arguments.model_files import shown
from paddlealign.errors import UserError


def model_directory(directory: str | Path) -> Path:
    """``directory`` as a Path, or a UserError where it is not there."""
    path = Path(directory)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{path}: this is a file; a model is a directory with config.json and *.safetensors.")
    raise UserError(
        f"{path}: there is no such directory. If this is the name of a model on a hub, download it first "
        "(with the hub's own tool) and give the path of the directory that it made."
    )


def wrong_value(where: str, key: str, value: Any, expected: str) -> UserError:
    """The error for a value of the wrong kind; ``expected`` completes "... was expected"."""
    return UserError(f"{where}: {key} is {shown(value)}; {expected} was expected.")


def positive_int(source: Mapping[str, Any], key: str, default: int, where: str) -> int:
    """``source[key]``, or ``default`` where it is missing or null; UserError unless a whole number above 0."""
    value = default if source.get(key) is None else source[key]
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise wrong_value(where, key, value, "a positive whole number")
    return value


def positive_number(source: Mapping[str, Any], key: str, default: float, where: str) -> float:
    """``source[key]``, or ``default`` where it is missing or null; UserError unless a finite number above 0."""
    value = default if source.get(key) is None else source[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise wrong_value(where, key, value, "a positive number")
    return float(value)


def true_or_false(source: Mapping[str, Any], key: str, default: bool, where: str) -> bool:
    """``source[key]``, or ``default`` where it is missing or null; UserError unless true or false."""
    value = default if source.get(key) is None else source[key]
    if not isinstance(value, bool):
        raise wrong_value(where, key, value, "true or false")
    return value


def paddlenlp_layout(where: Path | str, sign: str) -> UserError:
    """The error for a model that PaddleNLP wrote; ``sign`` is what tells it."""
    return UserError(
        f"{where}: this is a model in PaddleNLP's layout ({sign}), which is not read: its names and its config.json differ from "
        "HuggingFace's. Give the HuggingFace checkpoint that the model came from (safetensors and HuggingFace's own config.json)."
    )
