"""Conversations in ShareGPT's form: a list of {from, value}. From there to messages."""

import json
from typing import Any

from paddlealign.data.example import Message
from paddlealign.data.message_rows import BadRowError, read_messages, shown
from paddlealign.data.row_marks import MARK_KEYS

# Who speaks, in the names that collections have.
_SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant", "bing": "assistant",
    "bard": "assistant", "system": "system", "observation": "tool", "function_response": "tool", "tool": "tool",
    "function_call": "assistant",
}  # fmt: skip


def conversation(row: dict[str, Any], key: str = "conversations") -> tuple[Message, ...]:
    """The messages under a key: {from, value} as ShareGPT has them, or {role, content}. Raises BadRowError."""
    if key not in row:
        raise BadRowError(f"no {key!r}.")
    value = row[key]
    turns = [value] if isinstance(value, dict) else value
    if not isinstance(turns, list) or not any(isinstance(turn, dict) and "from" in turn for turn in turns):
        return read_messages(turns, key)
    return read_messages([_message(turn, f"{key}[{index}]") for index, turn in enumerate(turns)], key)


def _message(turn: object, name: str) -> dict[str, Any]:
    if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
        raise BadRowError(f'{name} is {shown(turn)}; a turn is {{"from", "value"}}.')
    role = _SPEAKERS.get(str(turn["from"]))
    if role is None:
        raise BadRowError(f"{name} is from {shown(turn['from'])}; allowed are {', '.join(_SPEAKERS)}.")
    marks = {key: turn[key] for key in MARK_KEYS if key in turn}
    if turn["from"] != "function_call":
        return {"role": role, "content": turn["value"], **marks}
    try:
        calls = json.loads(turn["value"]) if isinstance(turn["value"], str) else turn["value"]
    except ValueError:
        raise BadRowError(f"{name}.value is {shown(turn['value'])}; a function_call's is JSON with name and arguments.") from None
    calls = calls if isinstance(calls, list) else [calls]
    return {"role": role, "content": None, "tool_calls": [{"type": "function", "function": call} for call in calls], **marks}
