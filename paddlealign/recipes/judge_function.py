"""A judge that is a Python function of the user's: found, called, and what it may return. Its mistakes are told as the user's."""

import importlib.util
import math
import sys
import traceback
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from types import ModuleType

import numpy as np

from paddlealign.arguments.judge_fields import split_judge
from paddlealign.data.example import Record
from paddlealign.errors import UserError

Prompt = str | list[dict[str, str | None]]
Judge = Callable[[Prompt, str, str], object]
_RETURNS = "a judge returns a number (above 0 where A is better, 0 for a tie, below 0 where B is), or two numbers, the scores of A and B"


def load_judge(judge: str, key: str = "judge") -> Judge:
    """The function that ``judge`` names, FILE.py:FUNCTION; the file is run. key: which names it, for messages. Raises UserError."""
    path, name = split_judge(judge)
    function = getattr(_run_file(Path(path), key), name, None)
    if not callable(function):
        raise UserError(f"{key}: {path} has no function {name}.")
    return function


def _run_file(path: Path, key: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"judge_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the names in annotations
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - whatever the user's file does
        raise UserError(f"{key}: {path} cannot be run: {_told(error, path)}.") from None
    return module


def call_judge(judge: Judge, name: str, record: Record, answer_a: str, answer_b: str) -> tuple[float, tuple[float, float] | None]:
    """A's margin over B, and the two scores where the function gives them. name: of the judge, for messages. Raises UserError."""
    try:
        value = judge(prompt_of(record), answer_a, answer_b)
    except Exception as error:  # noqa: BLE001 - whatever the user's function does
        raise UserError(f"{record.source}: judge {name} failed: {_told(error, Path(split_judge(name)[0]))}.") from None
    flag = isinstance(value, bool | np.bool_)  # alone, False might mean that B is better, or that neither is
    if isinstance(value, Real) and not flag:
        margin, scores = float(value), None
    elif isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(it, Real | np.bool_) for it in value):
        scores = (float(value[0]), float(value[1]))
        margin = scores[0] - scores[1]
    else:
        raise UserError(f"{record.source}: judge {name} returned {_shown(value)}; {_RETURNS}.")
    if not math.isfinite(margin):
        raise UserError(f"{record.source}: judge {name} returned {_shown(value)}; the numbers must be finite.")
    return margin, scores


def prompt_of(record: Record) -> Prompt:
    """What a judge gets to see of the prompt: the user's text where there is nothing else, the messages as role and content otherwise."""
    messages = record.messages
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content or ""
    return [{"role": message.role, "content": message.content} for message in messages]


def _told(error: Exception, path: Path) -> str:
    """The error in one line, with the line of the user's file that it went through last."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == path.resolve()]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f" ({path}, line {lines[-1]})" if lines else ""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
