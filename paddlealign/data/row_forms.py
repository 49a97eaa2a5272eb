"""What each kind of row may look like: from a row to its records.

A row that is malformed raises BadRowError. A row that is well formed but cannot teach anything (chosen equals rejected, equal sort) gives
no record and a reason, since such rows are common in collected data.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from paddlealign.data.example import Message, Record
from paddlealign.data.message_rows import BadRowError, read_messages, read_number, read_text, read_texts, shown

ASKING = ("user", "tool")  # the roles after which a model answers
ROW_FORMS = {
    "sft": '{"src", "tgt"} (texts, or lists of turns) or {"messages": [{"role", "content"}, ...]}; "tools": [...] beside them',
    "preference": '{"prompt", "chosen", "rejected"} (texts or messages) or {"src", "tgt", "response": [a, b], "sort": [1, 0]}',
    "labelled": '{"prompt", "completion", "label": true or false}, {"src", "tgt", "response": [a], "sort": [1 or 0]}, or a pair',
    "prompt": '{"src"}, {"prompt"} or {"messages": [{"role", "content"}, ...]}',
    "answered": 'a prompt ({"src"}, {"prompt"} or {"messages"}) with its answer in "response" or "output" (a text or several), in "tgt" '
    'or as the last message; or a pair, {"prompt", "chosen", "rejected"}',
    "held_out": '{"src", "tgt"} (texts, or lists of turns) or {"messages": [{"role", "content"}, ...]}; or a pair, {"prompt", "chosen", '
    '"rejected"}',
}
Parsed = tuple[list[Record], list[str]]  # the records of a row, and a reason for each that was left out


def _sft_records(row: dict[str, Any], where: str) -> Parsed:
    """{messages}, or {src, tgt}: one record."""
    if "messages" in row:
        messages = _with_system(row, read_messages(row["messages"], "messages"), "messages")
        if messages[-1].role != "assistant":
            raise BadRowError(f'the last message has role "{messages[-1].role}"; in an SFT row it must be "assistant".')
        return [Record(messages[:-1], (_answer(messages[-1]),), True, where)], []
    _need(row, ("src", "tgt"))
    sources, targets = read_texts(row["src"], "src", may_be_empty=True), read_texts(row["tgt"], "tgt")
    if len(sources) != len(targets):
        raise BadRowError(f"src has {len(sources)} turns and tgt has {len(targets)}; they must be as many.")
    turns = _interleave(sources, targets[:-1])
    if len(sources) == 1 and not sources[0]:
        turns = ()  # no prompt: the response is the whole text
    return [Record(_system(row) + turns, (targets[-1],), len(targets) > 1, where)], []


def _preference_records(row: dict[str, Any], where: str) -> Parsed:
    """As ``_pairs``, with the row's ``margin``, which is that of all its pairs."""
    records, reasons = _pairs(row, where)
    margin = 0.0 if row.get("margin") is None else read_number(row["margin"], "margin")
    return [replace(record, margin=margin) for record in records], reasons


def _pairs(row: dict[str, Any], where: str) -> Parsed:
    """{prompt, chosen, rejected} with texts or messages, n paired answers: n records; {src, tgt, response, sort}: one."""
    if "response" in row or "sort" in row:
        return _sorted_record(row, where)
    _need(row, ("chosen", "rejected"))
    if any(isinstance(row[key], list) and any(isinstance(item, dict) for item in row[key]) for key in ("chosen", "rejected")):
        return _message_pair(row, where)
    _need(row, ("prompt",))
    messages = _prompt_messages(row, "prompt")
    chosen, rejected = read_texts(row["chosen"], "chosen"), read_texts(row["rejected"], "rejected")
    if len(chosen) != len(rejected):
        raise BadRowError(f"{len(chosen)} chosen and {len(rejected)} rejected answers; they are paired in order and must be as many.")
    records = [Record(messages, pair, False, where) for pair in zip(chosen, rejected, strict=True) if pair[0] != pair[1]]
    return records, ["chosen equals rejected"] * (len(chosen) - len(records))


def _message_pair(row: dict[str, Any], where: str) -> Parsed:
    """Answers as messages: the last of each is the answer; what stands before it is the prompt, alike in both."""
    chosen, rejected = read_messages(row["chosen"], "chosen"), read_messages(row["rejected"], "rejected")
    for key, messages in (("chosen", chosen), ("rejected", rejected)):
        if messages[-1].role != "assistant":
            raise BadRowError(f'the last message of {key} has role "{messages[-1].role}"; it must be "assistant", the answer.')
    before = chosen[:-1]
    if before != rejected[:-1]:
        raise BadRowError("chosen and rejected differ before their last message; the turns in front of the two answers must be the same.")
    given = _prompt_messages(row, "prompt") if row.get("prompt") else ()
    if not before and not given:
        raise BadRowError("there is no prompt: neither the key prompt nor turns in front of the answers.")
    prompt = _with_system(row, before, "chosen") if before else given
    if prompt[-1].role not in ASKING:
        raise BadRowError(f'the message in front of the answers has role "{prompt[-1].role}"; it must be "user" or "tool".')
    if given and given != prompt:
        raise BadRowError("the turns in front of the answers are not those of prompt. Make them the same, or leave one of the two out.")
    if chosen == rejected:
        return [], ["chosen equals rejected"]
    return [Record(prompt, (_answer(chosen[-1]), _answer(rejected[-1])), False, where)], []


def _labelled_records(row: dict[str, Any], where: str) -> Parsed:
    """{prompt, completion, label}, or PaddleNLP's row with one answer: one record; a pair: two."""
    if "completion" in row or "label" in row:
        _need(row, ("prompt", "completion", "label"))
        if not isinstance(row["label"], bool):
            raise BadRowError(f"label is {shown(row['label'])}; it must be true (a desirable answer) or false.")
        return [Record(_prompt_messages(row, "prompt"), (_completion(row["completion"]),), False, where, desirable=row["label"])], []
    if "sort" in row and isinstance(row.get("response"), str | list) and len(read_texts(row["response"], "response")) == 1:
        prompt, answers, sort = _sorted_answers(row, 1)
        return [Record(prompt, answers, False, where, desirable=sort[0] > 0)], []
    records, reasons = _preference_records(row, where)
    sides = [(record, side) for record in records for side in (0, 1)]
    return [replace(record, responses=(record.responses[side],), desirable=side == 0) for record, side in sides], reasons


def _completion(value: object) -> str | Message:
    """An answer: a text, or one assistant's message in a list."""
    if not isinstance(value, list):
        return read_text(value, "completion")
    messages = read_messages(value, "completion")
    if len(messages) != 1 or messages[0].role != "assistant":
        raise BadRowError("completion is a list of messages; it must hold one, with role assistant.")
    return _answer(messages[0])


def _answer(message: Message) -> str | Message:
    """A response: the text, or the message where it calls tools."""
    return message if message.tool_calls else message.content or ""


def _sorted_record(row: dict[str, Any], where: str) -> Parsed:
    """PaddleNLP's pair: the answer with the higher sort is chosen."""
    prompt, answers, sort = _sorted_answers(row, 2)
    if sort[0] == sort[1]:
        return [], ["both answers have the same sort"]
    if answers[0] == answers[1]:
        return [], ["chosen equals rejected"]
    pair = answers if sort[0] > sort[1] else (answers[1], answers[0])
    return [Record(prompt, pair, False, where)], []


def _sorted_answers(row: dict[str, Any], count: int) -> tuple[tuple[Message, ...], tuple[str, ...], list[float]]:
    """The prompt, the answers and their sort of a PaddleNLP row with so many answers."""
    _need(row, ("src", "response", "sort"))
    sources = read_texts(row["src"], "src")
    targets = read_texts(row["tgt"], "tgt", may_be_empty=len(sources) == 1) if row.get("tgt") else ()
    if len(targets) != len(sources) - 1:
        raise BadRowError(f"src has {len(sources)} turns and tgt has {len(targets)}; tgt holds the earlier answers, one fewer than src.")
    answers, sort = read_texts(row["response"], "response"), row["sort"]
    words = {1: "one", 2: "two"}[count]
    if len(answers) != count:
        raise BadRowError(f"response holds {len(answers)} answers; it must hold {words}.")
    if not isinstance(sort, list) or len(sort) != count or not all(isinstance(x, (int, float)) for x in sort):
        meant = (
            "two numbers, the higher one for the chosen answer" if count == 2 else "one number in a list, above 0 for a desirable answer"
        )
        raise BadRowError(f"sort is {shown(sort)}; it must be {meant}.")
    return _system(row) + _interleave(sources, targets), answers, sort


def _prompt_records(row: dict[str, Any], where: str) -> Parsed:
    """{messages}, {src, tgt?} or {prompt}. An answer that stands at the end is the reference answer, not part of the prompt."""
    if "messages" in row:
        messages = _with_system(row, read_messages(row["messages"], "messages"), "messages")
        if messages[-1].role == "assistant":
            messages = messages[:-1]
        if not messages or messages[-1].role not in ASKING:
            raise BadRowError("messages holds no user message to answer.")
        return [Record(messages, (), False, where)], []
    if "src" in row:
        sources = read_texts(row["src"], "src")
        targets = read_texts(row["tgt"], "tgt", may_be_empty=True)[: len(sources) - 1] if len(sources) > 1 and "tgt" in row else ()
        if len(targets) != len(sources) - 1:
            raise BadRowError(f"src has {len(sources)} turns and tgt has {len(targets)}; every earlier turn needs its answer.")
        return [Record(_system(row) + _interleave(sources, targets), (), False, where)], []
    _need(row, ("prompt",))
    return [Record(_prompt_messages(row, "prompt"), (), False, where)], []


def _answered_records(row: dict[str, Any], where: str) -> Parsed:
    """A pair, or a prompt with its answers: a record for each pair, and for each answer."""
    if row.keys() & {"chosen", "rejected", "sort"}:
        return _preference_records(row, where)
    given = [key for key in ("response", "output") if key in row]
    if not given:
        records, reasons = _sft_records(row, where)
        return [replace(record, score_all_turns=False) for record in records], reasons
    if len(given) == 2:
        raise BadRowError("both response and output are there; which of them is to be scored? Rename or remove the other.")
    [prompt], reasons = _prompt_records(row, where)
    answers = read_texts(row[given[0]], given[0], may_be_empty=True)
    return [replace(prompt, responses=(answer,)) for answer in answers], reasons


def _held_out_records(row: dict[str, Any], where: str) -> Parsed:
    """An SFT row, or a pair's chosen answer."""
    if not row.keys() & {"chosen", "rejected", "sort"}:
        return _sft_records(row, where)
    records, reasons = _preference_records(row, where)
    return [replace(record, responses=record.responses[:1]) for record in records], reasons


def _prompt_messages(row: dict[str, Any], key: str) -> tuple[Message, ...]:
    """A prompt: a text, a list of turns that a user begins and ends, or a list of messages that a user ends."""
    value = row[key]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        messages = read_messages(value, key)
        if messages[-1].role not in ASKING:
            raise BadRowError(f'the last message of {key} has role "{messages[-1].role}"; it must be "user" or "tool".')
        return _with_system(row, messages, key)
    turns = read_texts(value, key)
    if len(turns) % 2 == 0:
        raise BadRowError(f"{key} has {len(turns)} turns; user and assistant take turns and the user has the last one: an odd number.")
    return _system(row) + _interleave(turns[0::2], turns[1::2])


def _interleave(user: Sequence[str], assistant: Sequence[str]) -> tuple[Message, ...]:
    """User, assistant, user, ...; ``assistant`` is as long as ``user`` or one shorter."""
    turns = []
    for index, text in enumerate(user):
        turns.append(Message("user", text))
        if index < len(assistant):
            turns.append(Message("assistant", assistant[index]))
    return tuple(turns)


def _system(row: dict[str, Any]) -> tuple[Message, ...]:
    """The row's ``system`` text as a message, if it has one."""
    if not row.get("system"):
        return ()
    return (Message("system", read_text(row["system"], "system")),)


def _with_system(row: dict[str, Any], messages: tuple[Message, ...], key: str) -> tuple[Message, ...]:
    """The messages behind the row's ``system`` text; they may not begin with a system message of their own then."""
    system = _system(row)
    if system and messages[0].role == "system":
        raise BadRowError(f"the row has a system text, and {key} begins with a system message too. Keep one of them.")
    return system + messages


def _need(row: dict[str, Any], keys: Sequence[str]) -> None:
    missing = [key for key in keys if key not in row]
    if missing:
        found = ", ".join(repr(key) for key in list(row)[:8]) or "no key at all"
        raise BadRowError(f"no {' and no '.join(repr(key) for key in missing)}; found {found}.")


PARSERS: dict[str, Callable[[dict[str, Any], str], Parsed]] = {
    "sft": _sft_records,
    "preference": _preference_records,
    "labelled": _labelled_records,
    "prompt": _prompt_records,
    "answered": _answered_records,
    "held_out": _held_out_records,
}
