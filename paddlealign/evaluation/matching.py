"""Two files of answers to the same prompts, in whatever order: which answers belong together."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from paddlealign.data.example import Record
from paddlealign.errors import UserError

SHOWN_PROBLEMS = 5
_SHOWN_CHARACTERS = 60


def match_answers(first: Sequence[Record], second: Sequence[Record], names: tuple[str, str]) -> list[int]:
    """For each record of ``first`` the index of the record of ``second`` that answers the same prompt.

    A prompt is all that stands in front of the answer: system text, earlier turns and tools count. names: of the two files. Raises
    UserError with the first problems by file and line: a prompt that stands there twice, or in one of the files only.
    """
    places, problems = [], []
    for records in (first, second):
        seen: dict[str, int] = {}
        for index, record in enumerate(records):
            before = seen.setdefault(prompt_key(record), index)
            if before != index:
                problems.append(_twice(record.source, records[before].source))
        places.append(seen)
    for records, other, name in ((first, places[1], names[1]), (second, places[0], names[0])):
        problems += [
            f"{record.source}: {name} has no answer to this prompt: {shown_prompt(record)}"
            for record in records
            if prompt_key(record) not in other
        ]
    if problems:
        more = f"\n  ... and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise UserError(
            f"the answers of {names[0]} ({len(first)}) and {names[1]} ({len(second)}) do not belong to the same prompts:\n  "
            + "\n  ".join(dict.fromkeys(problems[:SHOWN_PROBLEMS]))
            + more
            + "\nEach prompt needs one answer in each file; the order is free."
        )
    return [places[1][prompt_key(record)] for record in first]


def prompt_key(record: Record) -> str:
    """A text that is the same for the same prompt: its messages and tools."""
    return json.dumps([[asdict(message) for message in record.messages], record.tools], ensure_ascii=False, sort_keys=True)


def shown_prompt(record: Record) -> str:
    """The prompt's last message, in quotes and cut to what fits a line."""
    text = " ".join((record.messages[-1].content or "").split()) if record.messages else ""
    return json.dumps(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "...", ensure_ascii=False)


def _twice(source: str, before: str) -> str:
    if source == before:
        return f"{source}: the row holds several answers; one for each prompt is compared. Keep one of them (num_return_sequences 1)."
    return f"{source}: the prompt stands at {before} already."
