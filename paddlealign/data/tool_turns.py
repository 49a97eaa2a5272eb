"""Tools in a conversation: what a template must show of them, and where the turns that call them stand in the text."""

import itertools
from collections.abc import Sequence
from typing import Any

from paddlealign.data.answer_spans import CallingTurn, RowRefusedError, Span, common_length, locate_calls, mark, split_at_marks
from paddlealign.data.example import Message
from paddlealign.data.template import Template, of_tools, run


def refuse_tools(messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None) -> None:
    """Turns that are only joined have no form for tools."""
    if tools or any(message.tool_calls or message.role == "tool" for message in messages):
        raise RowRefusedError("tools, tool calls and tool results need a chat template and a prompt (see the key chat_template)")


def refuse_unseen_tools(template: Template, messages: list[dict[str, Any]], tools: Sequence[dict[str, Any]] | None) -> None:
    """A model must not learn to call functions that it was not told of."""
    if not tools:
        return
    named = [_named(tool, mark(number)) for number, tool in enumerate(tools)]
    try:
        text = run(template, messages, named)
    except RowRefusedError:
        # A template without tools may stumble over the first turn that calls one: what stands before it shows whether it has any.
        before = list(itertools.takewhile(lambda message: not of_tools(message), messages))
        text = run(template, before or messages, named)
        if all(mark(number) in text for number in range(len(tools))):
            raise
    for number, tool in enumerate(tools):
        if mark(number) not in text:
            name = _function_of(tool)["name"]
            raise RowRefusedError(f"the chat template does not show the tool {name} (set chat_template to one that does)")


def _function_of(value: dict[str, Any]) -> dict[str, Any]:
    """The function of a tool or of a call: under the key ``function``, or the object itself."""
    return value.get("function", value)


def _named(value: dict[str, Any], name: str) -> dict[str, Any]:
    """The same tool or call under another name."""
    function = {**_function_of(value), "name": name}
    return {**value, "function": function} if "function" in value else function


def find_calls(
    template: Template, messages: list[dict[str, Any]], tools: Sequence[dict[str, Any]] | None, whole: str
) -> dict[int, Span | None]:
    """Where the turns that call tools stand in the whole text: place of the message -> span, None where the template alters it."""
    calling = [i for i, message in enumerate(messages) if "tool_calls" in message]
    results = [i for i, message in enumerate(messages) if message["role"] == "tool"]
    if not calling and not results:
        return {}
    names = {i: tuple(_function_of(call)["name"] for call in messages[i]["tool_calls"]) for i in calling}
    marked = [_with_marks(message) if i in calling else message for i, message in enumerate(messages)]
    answered = [{**message, "content": mark(i)} if i in results else message for i, message in enumerate(marked)]
    if len(split_at_marks(run(template, answered, tools))) != sum(map(len, names.values())) + len(results) + 1:
        raise RowRefusedError(
            "the chat template does not show every tool call and result exactly once (set chat_template to one that does)"
        )
    turns = []
    for i in calling:
        before, prompt = run(template, messages[:i], tools), run(template, messages[:i], tools, add_generation_prompt=True)
        opening = prompt.removeprefix(before) if prompt.startswith(before) else ""
        head = split_at_marks(run(template, [*messages[:i], marked[i]], tools))[0]
        # Mistral shows the system text only where a question comes last; there the turn begins where an answer in words would.
        words = split_at_marks(run(template, [*messages[:i], {"role": "assistant", "content": mark(0)}], tools))[0]
        start = len(prompt) if head.startswith(prompt) else common_length(head, words)
        turns.append(CallingTurn(names[i], opening, head[start:]))
    frame = split_at_marks(run(template, marked, tools))
    return dict(zip(calling, locate_calls(template.ends, whole, frame, turns), strict=True))


def _with_marks(message: dict[str, Any]) -> dict[str, Any]:
    """The message with marks instead of the names of the functions that it calls."""
    return {**message, "tool_calls": [_named(call, mark(number)) for number, call in enumerate(message["tool_calls"])]}
