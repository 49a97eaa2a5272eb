"""Split ``[ARGS.json] [--key value ...]`` into a file and keys."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from paddlealign.arguments.given import Given
from paddlealign.errors import UserError

_NUMBER = re.compile(r"-\.?\d")
_WHERE = "command line"


def split_command_line(argv: Sequence[str], kinds: Mapping[str, type]) -> tuple[Path | None, list[Given]]:
    """The argument file (the first word that is no --key) and the keys after it; of a key given twice the last counts.

    kinds: key -> bool, int, float, str or list, for every known key; an unknown key takes what follows it. ``--key value``,
    ``--key=value``, ``--switch`` (true) and ``--no_switch`` (false) are understood. A value null or None unsets the key.
    """
    words = list(argv)
    if words and re.match(r"[A-Za-z_][\w.]*=", words[0]):
        raise UserError(
            f"{_WHERE}: {words[0]} is in the style of the DPO paper's code. python -m paddlealign.convert ... -o args.json, with all these "
            "words in it, makes an argument file of them; a key of PaddleAlign is written --key value."
        )
    file = Path(words.pop(0)) if words and not words[0].startswith("-") else None
    given: dict[str, Given] = {}
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            raise UserError(_stray(word, file, next(reversed(given), None)))
        key, equals, text = word[2:].partition("=")
        values = [text] if equals else []
        while not equals and words and (not words[0].startswith("-") or _NUMBER.match(words[0])):
            values.append(words.pop(0))
        if key not in kinds and key.startswith("no_") and kinds.get(key[3:]) is bool and not values:
            key, values = key[3:], ["false"]
        kind = kinds.get(key)
        if kind not in (list, None) and len(values) > 1:
            raise UserError(_stray(values[1], file, key))
        if not values and kind not in (bool, None):
            raise UserError(f"{_WHERE}: --{key} needs a value after it (one that starts with -- is written --{key}=VALUE).")
        value = True if not values else values[0] if len(values) == 1 else values
        given.pop(key, None)
        given[key] = Given(key, None if value == "null" or (value == "None" and key != "chat_template") else value, _WHERE, _WHERE)
    return file, list(given.values())


def _stray(word: str, file: Path | None, key: str | None) -> str:
    if word.endswith(".json"):
        first = f"{file} is given already" if file else "the argument file comes first, before every --key"
        return f"{_WHERE}: unexpected {word}: {first}."
    after = f" after --{key}" if key else ""
    return f"{_WHERE}: unexpected {word}{after}. Every key is written --key value; a value with spaces stands in quotes."
