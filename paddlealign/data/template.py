"""A conversation as one text, with the places in it that are scored.

A chat template is a program: it may strip, drop or add text around what it is given. So the places are found by rendering the same
conversation with marks instead of the answers and by comparing (answer_spans.py).
"""

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2

from paddlealign.data.answer_spans import (
    CallingTurn,
    Ends,
    Rendered,
    RowRefusedError,
    common_length,
    holds,
    locate_answer,
    locate_calls,
    locate_turns,
    mark,
    split_at_marks,
)
from paddlealign.data.example import Message, Record
from paddlealign.data.jinja_template import compile_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError


@dataclass(frozen=True)
class Template:
    """How conversations become text. ``compiled`` None: the turns are joined as they are, with an EOS after every answer.

    with_tools: the checkpoint's own template for rows with tools, where it has one. name: "none", "tokenizer" or the file, for messages.
    end_token: what ends an assistant's turn. stop_ids: the ids that end a generated answer. reserved: the special tokens that only the
    template and the tokenizer write (BOS and whatever ends a turn or a text): a text of the data that holds one is refused.
    """

    name: str
    compiled: jinja2.Template | None
    with_tools: jinja2.Template | None
    named_tokens: dict[str, str]
    end_token: str
    ends: Ends
    stop_ids: tuple[int, ...]
    reserved: tuple[str, ...]
    fingerprint: str


def load_template(tokenizer: Tokenizer, choice: str = "auto") -> Template:
    """The template of the ``chat_template`` key: "auto" (the tokenizer's, else none), "none", or the path of a jinja file."""
    for_tools = tokenizer.tool_template if choice == "auto" else None
    if choice == "none" or (choice == "auto" and tokenizer.chat_template is None):
        source, name = None, "none"
    elif choice == "auto":
        source, name = tokenizer.chat_template, "tokenizer"
    else:
        try:
            source, name = Path(choice).read_text("utf-8"), choice
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"chat_template: {choice!r} cannot be read ({error}). Give auto, none or the path of a jinja file.") from None
    ends = [text for text in tokenizer.special_tokens if text not in (tokenizer.named_tokens.get("bos_token"), "")]
    any_end = _any_of([*ends, tokenizer.eos_token])
    template = Template(
        name=name,
        compiled=None if source is None else compile_template(source, name),
        with_tools=None if for_tools is None else compile_template(for_tools, name),
        named_tokens=tokenizer.named_tokens,
        end_token=tokenizer.eos_token,
        ends=Ends(any_end, any_end, tokenizer.eos_token),
        stop_ids=tokenizer.stop_ids,
        reserved=(),
        fingerprint=hashlib.sha256(((source or "") + (for_tools or "")).encode()).hexdigest(),
    )
    end_token = _find_end_token(template)
    end_id = tokenizer.special_tokens.get(end_token, tokenizer.eos_id)
    stop_ids = tuple(dict.fromkeys([*tokenizer.stop_ids, end_id]))
    stops = [text for text, index in tokenizer.special_tokens.items() if index in stop_ids]
    named = [tokenizer.named_tokens[key] for key in ("bos_token", "eos_token") if key in tokenizer.named_tokens]
    reserved = tuple(dict.fromkeys([*named, end_token, *stops]))
    ends_with = Ends(any_end, _any_of([tokenizer.eos_token, end_token, *stops]), tokenizer.eos_token)
    return replace(template, end_token=end_token, ends=ends_with, stop_ids=stop_ids, reserved=reserved)


def _any_of(texts: Sequence[str]) -> re.Pattern[str]:
    """A pattern for any of some texts, longer ones first."""
    return re.compile("|".join(re.escape(text) for text in sorted(set(texts), key=len, reverse=True)))


def render(template: Template, record: Record) -> tuple[Rendered, ...]:
    """The text of the record's conversation with each of its responses. Raises RowRefusedError."""
    answers = [response if isinstance(response, Message) else Message("assistant", response) for response in record.responses]
    for answer in answers:
        _refuse_reserved(template, [*record.messages, answer], record.tools)
    if template.compiled is None or not record.messages:
        _refuse_tools([*record.messages, *answers], record.tools)
        return tuple(_join(template, record, answer.content or "") for answer in answers)
    messages = [_as_dict(template, message) for message in record.messages]
    scored = [i for i, message in enumerate(messages) if message["role"] == "assistant"] if record.score_all_turns else []
    plain = [i for i in scored if "tool_calls" not in messages[i]]
    _refuse_unseen_tools(template, messages, record.tools)
    marked = [{**message, "content": mark(i)} if i in plain else message for i, message in enumerate(messages)]
    prompts = [_run(template, messages[:i], record.tools, add_generation_prompt=True) for i in [*plain, len(messages)]]
    turns = [messages[i]["content"] for i in plain]
    result = []
    for answer in answers:
        last = _as_dict(template, answer)
        whole = _run(template, [*messages, last], record.tools)
        calls = _locate_calls(template, [*messages, last], record.tools, whole)
        shown = last if answer.tool_calls else {**last, "content": mark(len(messages))}
        frame = split_at_marks(_run(template, [*marked, shown], record.tools))
        if len(frame) != len(plain) + 2 - bool(answer.tool_calls):
            raise RowRefusedError("the chat template does not show every assistant turn exactly once")
        if answer.tool_calls:
            rendered = _called(template, whole, prompts, frame, turns, answer, calls[len(messages)])
        else:
            rendered = locate_answer(template.ends, whole, prompts, frame, turns, last["content"])
        result.append(_with_calls(rendered, [calls[i] for i in scored if i in calls]))
    return tuple(result)


def render_prompt(template: Template, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None = None) -> str:
    """The text after which the model is to answer. Raises RowRefusedError."""
    _refuse_reserved(template, messages, tools)
    if template.compiled is None or not messages:
        _refuse_tools(messages, tools)
        return _join_turns(template, messages)[0]
    shown = [_as_dict(template, message) for message in messages]
    _refuse_unseen_tools(template, shown, tools)
    return _run(template, shown, tools, add_generation_prompt=True)


def _refuse_reserved(template: Template, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None) -> None:
    """Refuse texts that would become a BOS or an end token in the middle of a row.

    An end token at the end of an answer is allowed, and so is the BOS at the beginning of a text that no template frames: each stands
    where one is written anyway, and is written once.
    """
    contents = [(message.role, message.content or "") for message in messages]
    texts = [_without_end(template, content) if role == "assistant" else content for role, content in contents]
    if texts and (template.compiled is None or (len(messages) == 1 and messages[0].role == "assistant")):
        texts[0] = texts[0].removeprefix(template.named_tokens.get("bos_token", ""))
    texts += [json.dumps(value, ensure_ascii=False) for value in [tools, *(message.tool_calls for message in messages)] if value]
    for token in template.reserved:
        if any(token in text for text in texts):
            raise RowRefusedError(f"the text holds the special token {token} (remove it from the text)")


def _refuse_tools(messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None) -> None:
    """Turns that are only joined have no form for tools."""
    if tools or any(message.tool_calls or message.role == "tool" for message in messages):
        raise RowRefusedError("tools, tool calls and tool results need a chat template and a prompt (see the key chat_template)")


def _refuse_unseen_tools(template: Template, messages: list[dict[str, Any]], tools: Sequence[dict[str, Any]] | None) -> None:
    """A model must not learn to call functions that it was not told of."""
    if not tools:
        return
    named = [_named(tool, mark(number)) for number, tool in enumerate(tools)]
    try:
        text = _run(template, messages, named)
    except RowRefusedError:
        # A template without tools may stumble over the first turn that calls one: what stands before it shows whether it has any.
        before = list(itertools.takewhile(lambda message: not _of_tools(message), messages))
        text = _run(template, before or messages, named)
        if all(mark(number) in text for number in range(len(tools))):
            raise
    for number, tool in enumerate(tools):
        if mark(number) not in text:
            name = function_of(tool)["name"]
            raise RowRefusedError(f"the chat template does not show the tool {name} (set chat_template to one that does)")


def _of_tools(message: dict[str, Any]) -> bool:
    """Whether a turn calls tools, or is a tool's result."""
    return "tool_calls" in message or message["role"] == "tool"


def function_of(value: dict[str, Any]) -> dict[str, Any]:
    """The function of a tool or of a call: under the key ``function``, or the object itself."""
    return value.get("function", value)


def _named(value: dict[str, Any], name: str) -> dict[str, Any]:
    """The same tool or call under another name."""
    function = {**function_of(value), "name": name}
    return {**value, "function": function} if "function" in value else function


def _locate_calls(
    template: Template, messages: list[dict[str, Any]], tools: Sequence[dict[str, Any]] | None, whole: str
) -> dict[int, tuple[int, int] | None]:
    """Where the turns that call tools stand in the whole text: place of the message -> span, None where the template alters it."""
    calling = [i for i, message in enumerate(messages) if "tool_calls" in message]
    results = [i for i, message in enumerate(messages) if message["role"] == "tool"]
    if not calling and not results:
        return {}
    names = {i: tuple(function_of(call)["name"] for call in messages[i]["tool_calls"]) for i in calling}
    marked = [_with_marks(message) if i in calling else message for i, message in enumerate(messages)]
    answered = [{**message, "content": mark(i)} if i in results else message for i, message in enumerate(marked)]
    if len(split_at_marks(_run(template, answered, tools))) != sum(map(len, names.values())) + len(results) + 1:
        raise RowRefusedError(
            "the chat template does not show every tool call and result exactly once (set chat_template to one that does)"
        )
    turns = []
    for i in calling:
        before, prompt = _run(template, messages[:i], tools), _run(template, messages[:i], tools, add_generation_prompt=True)
        opening = prompt.removeprefix(before) if prompt.startswith(before) else ""
        head = split_at_marks(_run(template, [*messages[:i], marked[i]], tools))[0]
        # Mistral shows the system text only where a question comes last; there the turn begins where an answer in words would.
        words = split_at_marks(_run(template, [*messages[:i], {"role": "assistant", "content": mark(0)}], tools))[0]
        start = len(prompt) if head.startswith(prompt) else common_length(head, words)
        turns.append(CallingTurn(names[i], opening, head[start:]))
    frame = split_at_marks(_run(template, marked, tools))
    return dict(zip(calling, locate_calls(template.ends, whole, frame, turns), strict=True))


def _with_marks(message: dict[str, Any]) -> dict[str, Any]:
    """The message with marks instead of the names of the functions that it calls."""
    return {**message, "tool_calls": [_named(call, mark(number)) for number, call in enumerate(message["tool_calls"])]}


def _called(
    template: Template, whole: str, prompts: list[str], frame: list[str], turns: list[str], answer: Message, span: tuple[int, int] | None
) -> Rendered:
    """The conversation that ends in tool calls: they are scored from the generation prompt to their end token."""
    if span is None:
        raise RowRefusedError("the tool calls cannot be found in what the chat template makes of them, or no end token follows them")
    if not holds(whole[span[0] : span[1]], answer.content or ""):
        raise RowRefusedError("the chat template drops the text beside the tool calls (set chat_template to one that keeps it)")
    spans, _, altered = locate_turns(template.ends, whole, prompts, frame, turns)
    spans.append(span)
    return Rendered(whole[: span[1]], tuple(spans), spans[0][0], altered)


def _with_calls(rendered: Rendered, calls: list[tuple[int, int] | None]) -> Rendered:
    """Score the earlier turns that call tools as well."""
    if not calls:
        return rendered
    spans = tuple(sorted([*rendered.spans, *(span for span in calls if span is not None)]))
    return replace(rendered, spans=spans, boundary=spans[0][0], altered_turns=rendered.altered_turns + calls.count(None))


def _join(template: Template, record: Record, response: str) -> Rendered:
    """Plain concatenation: an EOS after every assistant turn, nothing else."""
    text, answers = _join_turns(template, record.messages)
    spans = answers if record.score_all_turns else []
    whole = text + _without_end(template, response) + template.named_tokens["eos_token"]
    spans = spans + [(len(text), len(whole))]
    return Rendered(whole, tuple(spans), spans[0][0])


def _join_turns(template: Template, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
    text, answers = "", []
    for message in messages:
        start = len(text)
        if message.role == "assistant":
            text += _without_end(template, message.content or "") + template.named_tokens["eos_token"]
            answers.append((start, len(text)))
        else:
            text += message.content or ""
    return text, answers


def _without_end(template: Template, content: str) -> str:
    """An answer without the end token that some data sets carry in their texts: it is written once, here."""
    for end in {template.end_token, template.named_tokens["eos_token"]}:
        if content.rstrip().endswith(end):
            return content.rstrip().removesuffix(end)
    return content


def _as_dict(template: Template, message: Message) -> dict[str, Any]:
    """A message as chat templates read it; what it does not have is left out."""
    content = message.content
    if message.role == "assistant" and content is not None:
        content = _without_end(template, content)
    calls = list(message.tool_calls) or None
    fields = {"content": content, "tool_calls": calls, "tool_call_id": message.tool_call_id, "name": message.name}
    return {"role": message.role, **{key: value for key, value in fields.items() if value is not None}}


def _run(
    template: Template, messages: list[dict[str, Any]], tools: Sequence[dict[str, Any]] | None, add_generation_prompt: bool = False
) -> str:
    compiled = template.with_tools if tools is not None and template.with_tools is not None else template.compiled
    assert compiled is not None
    try:
        return compiled.render(
            messages=messages,
            tools=None if tools is None else list(tools),
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **template.named_tokens,
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
        stumbled = isinstance(error, jinja2.UndefinedError | TypeError) and any(map(_of_tools, messages))
        hint = " (the row has tool calls or results; set chat_template to one that shows them)" if stumbled else ""
        raise RowRefusedError(f"the chat template raises: {str(error).rstrip('.')}{hint}") from None


def _find_end_token(template: Template) -> str:
    """What the template writes after an answer, up to its first special token; the EOS where it writes none."""
    if template.compiled is None:
        return template.end_token
    question = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark(0)}]
    try:
        tail = split_at_marks(_run(template, question, None))[-1]
    except RowRefusedError:
        return template.end_token
    match = template.ends.any.search(tail)
    return match.group() if match else template.end_token
