"""The texts, messages and tools of a row: what each may look like, and plain words for what it does not."""

import json
import math
from contextlib import suppress
from typing import Any

from paddlealign.data.example import Message
from paddlealign.data.row_marks import read_marks

ROLES = ("system", "user", "assistant", "tool")
# Other forms of what is said elsewhere: never read past, since the row would lose it.
_OTHER_FORMS = {
    "function_call": 'it is the older form of "tool_calls": [{"type": "function", "function": {"name", "arguments"}}]',
    "reasoning_content": "put the thought into content as the model writes it, such as <think>...</think>",
    "reasoning": "put the thought into content as the model writes it, such as <think>...</think>",
    "thinking": "put the thought into content as the model writes it, such as <think>...</think>",
}


class BadRowError(Exception):
    """A row that is not in any form that its kind allows. The text says what was found and what is allowed."""


def read_messages(value: object, key: str) -> tuple[Message, ...]:
    """A list of messages: a system message may come first, and a tool's result follows a call. Raises BadRowError."""
    if not isinstance(value, list) or not value:
        raise BadRowError(f"{key} is {shown(value)}; it must be a list of messages.")
    messages: list[Message] = []
    for index, item in enumerate(value):
        name = f"{key}[{index}]"
        calls = isinstance(item, dict) and item.get("tool_calls") not in (None, [])
        if not isinstance(item, dict) or "role" not in item or ("content" not in item and not calls):
            raise BadRowError(f'{name} is {shown(item)}; a message is {{"role", "content"}}.')
        if item["role"] not in ROLES:
            raise BadRowError(f"{name} has role {shown(item['role'])}; allowed are {', '.join(ROLES)}.")
        if item["role"] == "system" and index:
            raise BadRowError(f"{name} is a system message; only the first message may be one.")
        for other, advice in _OTHER_FORMS.items():
            if item.get(other):
                raise BadRowError(f"{name}.{other} is not read; {advice}.")
        if item["role"] == "tool" and not (messages and (messages[-1].tool_calls or messages[-1].role == "tool")):
            raise BadRowError(f'{name} is a tool\'s result; it must follow an assistant message with "tool_calls", or another result.')
        messages.append(_message(item, name, bool(calls)))
    return tuple(messages)


def _message(item: dict[str, Any], name: str, calls: bool) -> Message:
    role, content = item["role"], item.get("content")
    if calls and role != "assistant":
        raise BadRowError(f'{name} has tool_calls and role "{role}"; only an assistant calls tools.')
    if not calls or content is not None:
        content = read_text(content, f"{name}.content", may_be_empty=calls or role != "assistant")
    ids = {key: item.get(key) for key in ("tool_call_id", "name")} if role == "tool" else {}
    ids = {key: read_text(value, f"{name}.{key}") for key, value in ids.items() if value is not None}
    tool_calls = _tool_calls(item["tool_calls"], f"{name}.tool_calls") if calls else ()
    try:
        marks = read_marks(item, name, role, content)
    except ValueError as error:
        raise BadRowError(str(error)) from None
    return Message(role, content, tool_calls, ids.get("tool_call_id"), ids.get("name"), marks)


def _tool_calls(value: object, key: str) -> tuple[dict[str, Any], ...]:
    """Calls in OpenAI's form, or with name and arguments at their top."""
    form = 'a call is {"type": "function", "function": {"name": text, "arguments": object}}'
    calls = _functions(value, key, form)
    for index, call in enumerate(calls):
        arguments = call.get("function", call).get("arguments")
        if not isinstance(arguments, dict | str):
            raise BadRowError(f"{key}[{index}] has arguments {shown(arguments)}; {form}.")
    return calls


def read_tools(value: object) -> tuple[dict[str, Any], ...] | None:
    """The functions that may be called, as a row's ``tools``: JSON schemas in OpenAI's form, or with the name at their top."""
    if value is None or value == "":
        return None
    if isinstance(value, str):  # as tables have it
        with suppress(ValueError):
            value = json.loads(value)
    return _functions(value, "tools", 'a tool is {"type": "function", "function": {"name": text, "description", "parameters"}}', True)


def _functions(value: object, key: str, form: str, may_be_empty: bool = False) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list) or not (value or may_be_empty):
        raise BadRowError(f"{key} is {shown(value)}; it must be a list, and {form}.")
    for index, item in enumerate(value):
        function = item.get("function", item) if isinstance(item, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"].strip():
            raise BadRowError(f"{key}[{index}] is {shown(item)}; {form}.")
    read_text(json.dumps(value, ensure_ascii=False), key)
    return tuple(value)


def read_texts(value: object, key: str, may_be_empty: bool = False) -> tuple[str, ...]:
    """A text or a list of texts, as a tuple."""
    if isinstance(value, list):
        if not value:
            raise BadRowError(f"{key} is an empty list.")
        return tuple(read_text(item, f"{key}[{index}]", may_be_empty) for index, item in enumerate(value))
    return (read_text(value, key, may_be_empty),)


def read_text(value: object, key: str, may_be_empty: bool = False) -> str:
    """A text of whole characters. Raises BadRowError."""
    if not isinstance(value, str):
        raise BadRowError(f"{key} is {shown(value)}; it must be a text.")
    if not may_be_empty and not value.strip():
        raise BadRowError(f"{key} is empty.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRowError(f"{key} holds half a surrogate pair (\\u{ord(value[error.start]):04x}), which is no character.") from None
    return value


def read_number(value: object, key: str) -> float:
    """A finite number. Raises BadRowError."""
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number beyond any float
        number = math.inf
    if not math.isfinite(number):
        raise BadRowError(f"{key} is {shown(value)}; it must be a number.")
    return number


def type_of(value: object) -> str:
    """JSON's word for what a value is."""
    names = {list: "list", str: "text", bool: "boolean", int: "number", float: "number", type(None): "null", dict: "object"}
    return names.get(type(value), type(value).__name__)


def shown(value: object) -> str:
    """A value for a message, cut to what fits a line."""
    text = repr(value)
    return f"{type_of(value)} {text if len(text) <= 40 else text[:37] + '...'}" if value is not None else "null"
