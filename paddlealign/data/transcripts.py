"""Conversations written as one text, "Human: ..." and "Assistant: ..." with a blank line before each, as in HH (Bai et al. 2022)."""

import re
from typing import Any

from paddlealign.data.answer_forms import response_key
from paddlealign.data.example import Message, Record
from paddlealign.data.message_rows import BadRowError, read_text
from paddlealign.data.pair_forms import EQUAL
from paddlealign.data.row_parts import Parsed, need, system

_MARK = re.compile(r"(?:^|\n\n)\s*(Human|Assistant):")
Turns = list[tuple[str, str]]
_START = re.compile(r"\s*Human:")


def is_transcript(value: object) -> bool:
    """Whether a text begins as a transcript does."""
    return isinstance(value, str) and bool(_START.match(value))


def transcript_pair(row: dict[str, Any], where: str) -> Parsed:
    """{chosen, rejected}, whole transcripts whose common beginning is the prompt; or {prompt, chosen, rejected}, the prompt a transcript.

    Collected transcripts that are no pair of answers to one prompt are refused with the reason, since such collections hold some.
    """
    need(row, ("chosen", "rejected"))
    prompt = read_text(row["prompt"], "prompt") if row.get("prompt") else None
    if prompt is not None and not is_transcript(prompt):
        raise BadRowError('prompt does not begin with "Human:", as a transcript does.')
    sides = []
    for key in ("chosen", "rejected"):
        text = read_text(row[key], key)
        if prompt is None and not is_transcript(text):
            raise BadRowError(f'{key} does not begin with "Human:", as a transcript does.')
        # A prompt that stands apart may be written out again in front of the answers.
        sides.append(text if prompt is None or text.startswith(prompt) else _joined(prompt, text))
    chosen, rejected = map(_turns, sides)
    if chosen[:-1] != rejected[:-1]:
        return [], ["the transcripts differ before their last turn"]
    reason = _unusable(chosen) or _unusable(rejected) or (EQUAL if chosen == rejected else "")
    if reason:
        return [], [reason]
    return [Record(system(row) + _messages(chosen[:-1]), (chosen[-1][1], rejected[-1][1]), False, where)], []


def transcript_answer(row: dict[str, Any], where: str) -> Parsed:
    """{prompt, response or completion}, the prompt a transcript."""
    key = response_key(row)
    need(row, ("prompt", key))
    turns = _turns(_joined(read_text(row["prompt"], "prompt"), read_text(row[key], key)))
    reason = _unusable(turns)
    return ([], [reason]) if reason else ([Record(system(row) + _messages(turns[:-1]), (turns[-1][1],), False, where)], [])


def _unusable(turns: Turns) -> str:
    """Why a transcript has no answer to learn, or an empty text."""
    if not turns or [speaker for speaker, _ in turns] != ["Human", "Assistant"] * (len(turns) // 2):
        return "Human and Assistant do not take turns, or the transcript does not end in an answer"
    return "" if all(text for _, text in turns) else "a turn of the transcript is empty"


def _messages(turns: Turns) -> tuple[Message, ...]:
    return tuple(Message("user" if speaker == "Human" else "assistant", text) for speaker, text in turns)


def _joined(prompt: str, answer: str) -> str:
    """A prompt that ends in "Assistant:" and its answer."""
    ending = "" if re.search(r"Assistant:\s*$", prompt) else "\n\nAssistant: "
    return prompt + ending + answer


def _turns(text: str) -> Turns:
    """(speaker, what is said) of every turn, without the white space around it."""
    marks = list(_MARK.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [(mark[1], text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]
