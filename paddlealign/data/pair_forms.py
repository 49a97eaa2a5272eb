"""Rows with a better and a worse answer that stand side by side. From a row to its records."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from paddlealign.data.answer_forms import alpaca_prompt
from paddlealign.data.example import Message, Record
from paddlealign.data.message_rows import BadRowError, read_messages, read_number, read_text, read_texts, shown
from paddlealign.data.row_parts import (
    ASKING,
    Parsed,
    answer_of,
    has,
    interleave,
    is_messages,
    need,
    prompt_messages,
    refuse_unscored,
    system,
    with_system,
)
from paddlealign.data.sharegpt import conversation

EQUAL = "chosen equals rejected"


def plain_pair(row: dict[str, Any], where: str) -> Parsed:
    """{prompt, chosen, rejected}, texts: n chosen and n rejected answers are paired in order and give n records."""
    need(row, ("chosen", "rejected"))
    need(row, ("prompt",))
    return _text_pairs(row, prompt_messages(row, "prompt"), where)


def _text_pairs(row: dict[str, Any], prompt: tuple[Message, ...], where: str) -> Parsed:
    chosen, rejected = read_texts(row["chosen"], "chosen"), read_texts(row["rejected"], "rejected")
    if len(chosen) != len(rejected):
        raise BadRowError(f"{len(chosen)} chosen and {len(rejected)} rejected answers; they are paired in order and must be as many.")
    records = [Record(prompt, pair, False, where) for pair in zip(chosen, rejected, strict=True) if pair[0] != pair[1]]
    return records, [EQUAL] * (len(chosen) - len(records))


def messages_pair(row: dict[str, Any], where: str) -> Parsed:
    """{messages, chosen, rejected}: the messages are the prompt; the answers are texts or messages."""
    need(row, ("messages", "chosen", "rejected"))
    if is_messages(row["chosen"]) or is_messages(row["rejected"]):
        return _message_pair(row, "messages", where)
    return _text_pairs(row, prompt_messages(row, "messages"), where)


def chat_pair(row: dict[str, Any], where: str) -> Parsed:
    """{prompt?, chosen, rejected}, answers as messages: the last of each is the answer, what stands before it the prompt, alike in both."""
    need(row, ("chosen", "rejected"))
    return _message_pair(row, "prompt", where)


def _message_pair(row: dict[str, Any], prompt_key: str, where: str) -> Parsed:
    chosen, rejected = (read_messages([row[key]] if isinstance(row[key], dict) else row[key], key) for key in ("chosen", "rejected"))
    for key, messages in (("chosen", chosen), ("rejected", rejected)):
        if messages[-1].role != "assistant":
            raise BadRowError(f'the last message of {key} has role "{messages[-1].role}"; it must be "assistant", the answer.')
        refuse_unscored(messages[-1], key)
    before = chosen[:-1]
    if before != rejected[:-1]:
        raise BadRowError("chosen and rejected differ before their last message; the turns in front of the two answers must be the same.")
    given = prompt_messages(row, prompt_key) if row.get(prompt_key) else ()
    if not before and not given:
        raise BadRowError(f"there is no prompt: neither the key {prompt_key} nor turns in front of the answers.")
    prompt = with_system(row, before, "chosen") if before else given
    if prompt[-1].role not in ASKING:
        raise BadRowError(f'the message in front of the answers has role "{prompt[-1].role}"; it must be "user" or "tool".')
    if given and given != prompt:
        raise BadRowError(
            f"the turns in front of the answers are not those of {prompt_key}. Make them the same, or leave one of the two out."
        )
    if chosen == rejected:
        return [], [EQUAL]
    return [Record(prompt, (answer_of(chosen[-1]), answer_of(rejected[-1])), False, where)], []


def alpaca_pair(row: dict[str, Any], where: str) -> Parsed:
    """{instruction, input?, history?, chosen, rejected}."""
    need(row, ("instruction", "chosen", "rejected"))
    return _text_pairs(row, alpaca_prompt(row), where)


def sharegpt_pair(row: dict[str, Any], where: str) -> Parsed:
    """{conversations, chosen, rejected}: the conversation is the prompt; an answer is {from, value} or a text."""
    need(row, ("conversations", "chosen", "rejected"))
    prompt = with_system(row, conversation(row), "conversations")
    if prompt[-1].role not in ASKING:
        raise BadRowError(f'the last turn of conversations has role "{prompt[-1].role}"; a person or a tool must have it.')
    pair = (_turn_answer(row, "chosen"), _turn_answer(row, "rejected"))
    return ([], [EQUAL]) if pair[0] == pair[1] else ([Record(prompt, pair, False, where)], [])


def _turn_answer(row: dict[str, Any], key: str) -> str | Message:
    if isinstance(row[key], str):
        return read_text(row[key], key)
    messages = conversation(row, key)
    if len(messages) != 1 or messages[0].role != "assistant":
        raise BadRowError(f"{key} is {shown(row[key])}; it must be one turn of the assistant's.")
    refuse_unscored(messages[0], key)
    return answer_of(messages[0])


def sorted_pair(row: dict[str, Any], where: str) -> Parsed:
    """PaddleNLP's {src, tgt?, response, sort}: the answer with the higher sort is chosen."""
    prompt, answers, sort = _sorted_answers(row, 2)
    if sort[0] == sort[1]:
        return [], ["both answers have the same sort"]
    if answers[0] == answers[1]:
        return [], [EQUAL]
    pair = answers if sort[0] > sort[1] else (answers[1], answers[0])
    return [Record(prompt, pair, False, where)], []


def sorted_label(row: dict[str, Any], where: str) -> Parsed:
    """The same row with one answer, which is desirable where its sort is above 0."""
    prompt, answers, sort = _sorted_answers(row, 1)
    return [Record(prompt, answers, False, where, desirable=sort[0] > 0)], []


def has_one_answer(row: dict[str, Any]) -> bool:
    """Whether a PaddleNLP row holds a single answer."""
    return isinstance(row.get("response"), str) or (isinstance(row.get("response"), list) and len(row["response"]) == 1)


def _sorted_answers(row: dict[str, Any], count: int) -> tuple[tuple[Message, ...], tuple[str, ...], list[float]]:
    """The prompt, the answers and their sort of a PaddleNLP row with so many answers."""
    need(row, ("src", "response", "sort"))
    sources = read_texts(row["src"], "src")
    targets = read_texts(row["tgt"], "tgt", may_be_empty=len(sources) == 1) if row.get("tgt") else ()
    if len(targets) != len(sources) - 1:
        raise BadRowError(f"src has {len(sources)} turns and tgt has {len(targets)}; tgt holds the earlier answers, one fewer than src.")
    answers, sort = read_texts(row["response"], "response"), row["sort"]
    words = {1: "one", 2: "two"}[count]
    if len(answers) != count:
        raise BadRowError(f"response holds {len(answers)} answers; it must hold {words}.")
    if not isinstance(sort, list) or len(sort) != count or not all(isinstance(x, int | float) and x == x for x in sort):
        meant = (
            "two numbers, the higher one for the chosen answer" if count == 2 else "one number in a list, above 0 for a desirable answer"
        )
        raise BadRowError(f"sort is {shown(sort)}; it must be {meant}.")
    return system(row) + interleave(sources, targets), answers, sort


def with_margin(parse: Callable[[dict[str, Any], str], Parsed]) -> Callable[[dict[str, Any], str], Parsed]:
    """A form of pairs with the row's ``margin``, which is that of all its pairs."""

    def parse_with_margin(row: dict[str, Any], where: str) -> Parsed:
        records, reasons = parse(row, where)
        margin = read_number(row["margin"], "margin") if has(row, "margin") else 0.0
        return [replace(record, margin=margin) for record in records], reasons

    return parse_with_margin


def as_labelled(parse: Callable[[dict[str, Any], str], Parsed]) -> Callable[[dict[str, Any], str], Parsed]:
    """A form of pairs, each pair as a desirable answer and one that is not."""

    def parse_labelled(row: dict[str, Any], where: str) -> Parsed:
        records, reasons = parse(row, where)
        sides = [(record, side) for record in records for side in (0, 1)]
        return [replace(record, responses=(record.responses[side],), desirable=side == 0) for record, side in sides], reasons

    return parse_labelled


def as_answer(parse: Callable[[dict[str, Any], str], Parsed]) -> Callable[[dict[str, Any], str], Parsed]:
    """A form of pairs, of each pair the chosen answer alone (SFT)."""

    def parse_answer(row: dict[str, Any], where: str) -> Parsed:
        records, reasons = parse(row, where)
        return [replace(record, responses=record.responses[:1], margin=0.0) for record in records], reasons

    return parse_answer
