"""Records that come more than once, and prompts that stand in the training rows and in the dev rows. Both are told, not mended."""

import hashlib
from collections.abc import Sequence

from paddlealign.data.example import Record
from paddlealign.data.shares import prompt_text, turn_text


def describe_repeats(split: str, records: Sequence[Record]) -> list[str]:
    """A line on records of a split that stand there again: same prompt, same answers, same label."""
    first: dict[bytes, str] = {}
    again: list[tuple[str, str]] = []
    for record in records:
        key = _digest(f"{prompt_text(record)} {[turn_text(answer) for answer in record.responses]} {record.desirable}")
        if key in first:
            again.append((record.source, first[key]))
        else:
            first[key] = record.source
    if not again:
        return []
    return [f"{split}: {len(again):,} records stand there before already, and are kept (first: {again[0][0]} is {again[0][1]})"]


def describe_leaks(train: Sequence[Record], dev: Sequence[Record]) -> list[str]:
    """A line on dev records whose prompts are trained on, so that evaluation flatters."""
    known = {_digest(prompt_text(record)): record.source for record in train if record.messages}
    found = [(record.source, known[key]) for record in dev if (key := _digest(prompt_text(record))) in known]
    if not found:
        return []
    return [f"note: {len(found):,} of {len(dev):,} dev records have a prompt that is trained on (first: {found[0][0]}, as {found[0][1]})"]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
