"""What the forms of rows are made of: prompts, answers, turns and system texts. All of it raises BadRowError where a row has none such."""

from collections.abc import Sequence
from typing import Any

from paddlealign.data.example import Message, Record
from paddlealign.data.message_rows import BadRowError, read_messages, read_text, read_texts

ASKING = ("user", "tool")  # the roles after which a model answers
Parsed = tuple[list[Record], list[str]]  # the records of a row, and a reason for each that was left out


def has(row: dict[str, Any], *keys: str) -> bool:
    """Whether the row has a value under each key; a null is none, as the columns of a table give it."""
    return all(row.get(key) is not None for key in keys)


def need(row: dict[str, Any], keys: Sequence[str]) -> None:
    """The keys must be there."""
    missing = [key for key in keys if key not in row]
    if missing:
        raise BadRowError(f"no {' and no '.join(repr(key) for key in missing)}; found {found_keys(row)}.")


def found_keys(row: dict[str, Any]) -> str:
    """The first keys of a row, for a message."""
    return ", ".join(repr(key) for key in list(row)[:8]) or "no key at all"


def is_messages(value: object) -> bool:
    """Whether a value is meant as a message or as a list of them."""
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def prompt_messages(row: dict[str, Any], key: str) -> tuple[Message, ...]:
    """A prompt: a text, a list of turns that a user begins and ends, or a list of messages that a user ends."""
    value = [row[key]] if isinstance(row[key], dict) else row[key]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        messages = read_messages(value, key)
        if messages[-1].role not in ASKING:
            raise BadRowError(f'the last message of {key} has role "{messages[-1].role}"; it must be "user" or "tool".')
        return with_system(row, messages, key)
    turns = read_texts(value, key)
    if len(turns) % 2 == 0:
        raise BadRowError(f"{key} has {len(turns)} turns; user and assistant take turns and the user has the last one: an odd number.")
    return system(row) + interleave(turns[0::2], turns[1::2])


def answer(row: dict[str, Any], key: str) -> str | Message:
    """An answer that is always scored: a text, or one assistant's message, alone or in a list."""
    message = answer_message(row, key)
    refuse_unscored(message, key)
    return answer_of(message)


def refuse_unscored(message: Message, key: str) -> None:
    """The answers of pairs and labelled rows are scored whole."""
    if message.marks.wanted is False or message.marks.parts is not None:
        raise BadRowError(f"{key} is marked not to be scored, or only in part; in such rows answers are scored whole. Remove the mark.")


def answer_message(row: dict[str, Any], key: str) -> Message:
    """An answer as a message."""
    value = row[key]
    if not is_messages(value):
        return Message("assistant", read_text(value[0] if isinstance(value, list) and len(value) == 1 else value, key))
    messages = read_messages([value] if isinstance(value, dict) else value, key)
    if len(messages) != 1 or messages[0].role != "assistant":
        raise BadRowError(f"{key} is a list of messages; it must hold one, with role assistant.")
    return messages[0]


def answer_of(message: Message) -> str | Message:
    """A response: the text, or the message where it calls tools."""
    return message if message.tool_calls else message.content or ""


def interleave(user: Sequence[str], assistant: Sequence[str]) -> tuple[Message, ...]:
    """User, assistant, user, ...; ``assistant`` is as long as ``user`` or one shorter."""
    turns = []
    for index, text in enumerate(user):
        turns.append(Message("user", text))
        if index < len(assistant):
            turns.append(Message("assistant", assistant[index]))
    return tuple(turns)


def system(row: dict[str, Any]) -> tuple[Message, ...]:
    """The row's ``system`` text as a message, if it has one."""
    if not row.get("system"):
        return ()
    return (Message("system", read_text(row["system"], "system")),)


def with_system(row: dict[str, Any], messages: tuple[Message, ...], key: str) -> tuple[Message, ...]:
    """The messages behind the row's ``system`` text; they may not begin with a system message of their own then."""
    own = system(row)
    if own and messages[0].role == "system":
        raise BadRowError(f"the row has a system text, and {key} begins with a system message too. Keep one of them.")
    return own + messages
