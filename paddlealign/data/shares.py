"""Which share of a data set a record is in: a pure function of its prompt, the same on every machine and in every file form."""

import hashlib
import json
from collections.abc import Sequence

from paddlealign.data.example import Message, Record


def place(record: Record) -> float:
    """Where a record lies between 0 and 1 (excluded), spread evenly over prompts; records of one prompt lie at one place.

    It is the first 53 bits of the sha256 of the prompt's turns: roles, texts and calls, without the white space around a text. A system
    message does not count, and where there is no prompt the answer stands for it.
    """
    return (int.from_bytes(hashlib.sha256(prompt_text(record).encode()).digest()[:8], "big") >> 11) / 2**53


def prompt_text(record: Record) -> str:
    """A record's prompt as one text, by which records are compared: its turns without system message; the answer where there are none."""
    turns: list[str | Message] = [message for message in record.messages if message.role != "system"]
    turns = turns or list(record.responses[:1])
    return json.dumps([turn_text(turn) for turn in turns], ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def turn_text(turn: str | Message) -> list[object]:
    """What of a turn, or of an answer, is compared: role, text without the white space around it, and calls."""
    if isinstance(turn, str):
        return ["assistant", turn.strip(), []]
    return [turn.role, (turn.content or "").strip(), list(turn.tool_calls)]


def in_share(records: Sequence[Record], start: float, end: float) -> list[Record]:
    """The records that lie from ``start`` to below ``end``, in their order."""
    return [record for record in records if start <= place(record) < end]
