"""A start script as people keep it beside a training code: the words of its one training command, with the script's variables put in."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from paddlealign.arguments.json_file import read_text
from paddlealign.errors import UserError

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)=(.*)$")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_STARTERS = ("deepspeed", "python", "python3", "torchrun", "accelerate")


def read_script(path: Path, environment: Mapping[str, str]) -> list[str]:
    """The words behind the .py of the script's training command, up to a redirection.

    Nothing is run. Assignments are read from top to bottom; those inside an if stand only where the variable is empty, as these scripts
    mean them; $1 and its like are empty. Raises UserError where there is no such command, or several.
    """
    text = re.sub(r"\\\s*\n", " ", read_text(path))
    variables = {name: value for name, value in environment.items() if name != "_"}
    own: dict[str, str] = {}
    commands: list[list[str]] = []
    depth = 0
    for line in text.splitlines():
        first = line.split(maxsplit=1)[0] if line.split() else ""
        depth += {"if": 1, "fi": -1}.get(first, 0)
        assignment = _ASSIGNMENT.match(line)
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UserError(f"{path}: {line.strip()[:60]} cannot be read: {error}.") from None
        if assignment and len(words) <= 2:
            name, value = words[-1].split("=", 1) if "=" in words[-1] else (assignment[1], "")
            if depth == 0 or not own.get(name):
                own[name] = _put_in(value, {**variables, **own})
        elif any(word in _STARTERS for word in words[:3]):
            commands.append([_put_in(word, {**variables, **own}) for word in words])
    if len(commands) != 1:
        raise UserError(
            f"{path}: {'no' if not commands else len(commands)} training commands stand in it (deepspeed or python); one is read."
        )
    return after_script(commands[0])


def after_script(words: list[str]) -> list[str]:
    """What stands behind the .py of a command, up to a pipe or a redirection; all of it where there is no .py."""
    start = next((at + 1 for at, word in enumerate(words) if word.endswith(".py")), 0)
    rest = words[start:]
    end = next((at for at, word in enumerate(rest) if re.match(r"\d?[>|&;]", word)), len(rest))
    return rest[:end]


def _put_in(text: str, variables: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], ""), text)
