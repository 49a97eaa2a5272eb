"""One key as the user gave it, before anything is known about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Given:
    """A key with its value.

    value: as JSON has it (str, bool, int, float, list, dict) for a file; a string, a list of strings, or True for a bare switch, for the
    command line.
    source: "file" or "command line".
    where: for messages: "sft.json, line 3" or "command line".
    """

    key: str
    value: Any
    source: str
    where: str


def list_problems(problems: Sequence[str]) -> str:
    """One problem as it is, several as a list under a count."""
    if len(problems) == 1:
        return problems[0]
    return "\n  ".join([f"{len(problems)} problems in the arguments:", *problems])
