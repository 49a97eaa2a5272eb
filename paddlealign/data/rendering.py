"""A conversation as one text, with the places in it that are scored.

A chat template is a program: it may strip, drop or add text around what it is given. So the places are found by rendering the same
conversation with marks instead of the answers and by comparing (answer_spans.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from paddlealign.data.answer_spans import Rendered, RowRefusedError, Span, holds, locate_answer, locate_turns, mark, split_at_marks
from paddlealign.data.example import Message, Record
from paddlealign.data.jinja_template import block_spans
from paddlealign.data.literal_text import FramedText
from paddlealign.data.scored_turns import Turn, is_wanted, select
from paddlealign.data.template import Template, run
from paddlealign.data.tool_turns import find_calls, refuse_tools, refuse_unseen_tools

Tools = Sequence[dict[str, Any]] | None
_GUARD = "\ue002"  # for private use, as the marks of answers
_SPELLED = "two turns, one behind the other, spell a special token (set chat_template to one that parts them)"


def render(template: Template, record: Record) -> tuple[Rendered, ...]:
    """The text of the record's conversation with each of its responses. Raises RowRefusedError."""
    answers = [response if isinstance(response, Message) else Message("assistant", response) for response in record.responses]
    try:
        if template.compiled is None or not record.messages:
            refuse_tools([*record.messages, *answers], record.tools)
            found = [_join(template, record, answer) for answer in answers]
        else:
            messages = [_masked(template, _as_dict(template, message)) for message in record.messages]
            refuse_unseen_tools(template, messages, template.masks.mask(record.tools))
            found = [_frame(template, record, answer) for answer in answers]
    except RowRefusedError as error:
        raise RowRefusedError(template.masks.unmask(str(error))) from None
    framed = [template.masks.framed(rendered.text) for rendered in found]
    return tuple(replace(one, text=text.text, masked=text.masked) for one, text in zip(found, framed, strict=True))


def render_prompt(template: Template, messages: Sequence[Message], tools: Tools = None) -> FramedText:
    """The text after which the model is to answer. Raises RowRefusedError."""
    try:
        if template.compiled is None or not messages:
            refuse_tools(messages, tools)
            return template.masks.framed(_join_turns(template, messages)[0])
        plain = [_as_dict(template, message) for message in messages]
        shown, masked_tools = [_masked(template, message) for message in plain], template.masks.mask(tools)
        refuse_unseen_tools(template, shown, masked_tools)
        text = run(template, shown, masked_tools, add_generation_prompt=True)
        _hold(template, (plain, tools), shown, text, add_generation_prompt=True)
        _refuse_spelled(template, shown, masked_tools, text, add_generation_prompt=True)
    except RowRefusedError as error:
        raise RowRefusedError(template.masks.unmask(str(error))) from None
    return template.masks.framed(text)


def _hold(
    template: Template,
    plain: tuple[list[dict[str, Any]], Tools],
    masked: list[dict[str, Any]],
    text: str,
    add_generation_prompt: bool = False,
) -> None:
    """What the template makes of masked messages must be, unmasked, what it makes of the messages themselves."""
    messages, tools = plain
    if masked == messages and template.masks.mask(tools) == (tools and list(tools)):
        return
    if template.masks.unmask(text) != run(template, messages, tools, add_generation_prompt):
        raise RowRefusedError("the chat template alters the text of a special token that stands in the row (remove it from the row)")


def _refuse_spelled(
    template: Template, messages: list[dict[str, Any]], tools: Tools, text: str, add_generation_prompt: bool = False
) -> None:
    """No turn may spell a special token together with what the template puts behind it, as those do that only join the turns."""
    if not any(template.masks.begins_one(message.get("content") or "") for message in messages):
        return
    parted = [{**message, "content": message["content"] + _GUARD} if message.get("content") else message for message in messages]
    count = len(template.masks.texts.findall(run(template, parted, tools, add_generation_prompt)))
    if len(template.masks.texts.findall(text)) != count:
        raise RowRefusedError(_SPELLED)


def _frame(template: Template, record: Record, answer: Message) -> Rendered:
    """The conversation with one response in the template's frames."""
    everyone = [*record.messages, answer]
    plain = [_as_dict(template, message) for message in everyone]
    messages, tools = [_masked(template, message) for message in plain], template.masks.mask(record.tools)
    last = len(messages) - 1
    earlier = [i for i, one in enumerate(record.messages) if one.role == "assistant" and is_wanted(record, one.marks)]
    earlier = earlier if record.score_all_turns else []
    speaking = [i for i in earlier if not everyone[i].tool_calls]
    whole = run(template, messages, tools)
    _hold(template, (plain, record.tools), messages, whole)
    _refuse_spelled(template, messages, tools, whole)
    calls = find_calls(template, messages, tools, whole)
    hidden = speaking if answer.tool_calls else [*speaking, last]
    frame = split_at_marks(run(template, [{**m, "content": mark(i)} if i in hidden else m for i, m in enumerate(messages)], tools))
    if len(frame) != len(hidden) + 1:
        raise RowRefusedError("the chat template does not show every assistant turn exactly once")
    prompts = [run(template, messages[:i], tools, add_generation_prompt=True) for i in [*speaking, last]]
    turns = [messages[i]["content"] for i in speaking]
    if answer.tool_calls:
        span = calls[last]
        _check_call(span, whole, messages[last].get("content"))
        text = whole[: span[1]] if span else whole
        spans = locate_turns(template.ends, whole, prompts, frame, turns)[0]
    else:
        text, spans = locate_answer(template.ends, whole, prompts, frame, turns, messages[last]["content"])
    found = {**calls, **dict(zip([*speaking, last], spans, strict=False))}
    wanted = [Turn(found[i], messages[i].get("content") or "", everyone[i].marks) for i in earlier]
    wanted.append(Turn(found[last], messages[last].get("content") or "", record.marks))
    blocks = _blocks(template, messages, tools, whole) if record.score_turns and template.marks_answers else None
    return select(record, template.ends, text, wanted, blocks)


def _blocks(template: Template, messages: list[dict[str, Any]], tools: Tools, whole: str) -> list[Span]:
    """What the template says is scored."""
    text, spans = block_spans(run(template, messages, tools, show_blocks=True))
    if text != whole:
        raise RowRefusedError("what the chat template's generation blocks hold cannot be found in its text")
    return spans


def _check_call(span: Span | None, whole: str, content: str | None) -> None:
    """A conversation that ends in tool calls is scored from the generation prompt to their end token."""
    if span is None:
        raise RowRefusedError("the tool calls cannot be found in what the chat template makes of them, or no end token follows them")
    if not holds(whole[span[0] : span[1]], content or ""):
        raise RowRefusedError("the chat template drops the text beside the tool calls (set chat_template to one that keeps it)")


def _join(template: Template, record: Record, answer: Message) -> Rendered:
    """Plain concatenation: an EOS after every assistant turn, nothing else."""
    text, spans = _join_turns(template, [*record.messages, answer])
    answers = [message for message in record.messages if message.role == "assistant"]
    turns = [
        Turn(span, _content(template, one), one.marks)
        for span, one in zip(spans, answers, strict=False)
        if record.score_all_turns and is_wanted(record, one.marks)
    ]
    return select(record, template.ends, text, [*turns, Turn(spans[-1], _content(template, answer), record.marks)], None)


def _join_turns(template: Template, messages: Sequence[Message]) -> tuple[str, list[Span]]:
    """The turns one behind the other, and the answers' places. A BOS at the very start is read as the BOS that is written anyway."""
    bos, eos = template.named_tokens.get("bos_token", ""), template.named_tokens["eos_token"]
    text, answers = "", []
    for message in messages:
        start, content = len(text), _without_end(template, message)
        if bos and message is messages[0] and content.startswith(bos):
            text, content = bos, content.removeprefix(bos)
        text += template.masks.mask(content)
        if message.role == "assistant":
            text += eos
            answers.append((start, len(text)))
    spelt = template.masks.texts.findall(text)
    if len(spelt) != len(answers) + (bool(bos) and text.startswith(bos)):
        raise RowRefusedError(_SPELLED)
    return text, answers


def _content(template: Template, message: Message) -> str:
    """A message's text as a template gets it."""
    return str(template.masks.mask(_without_end(template, message)))


def _without_end(template: Template, message: Message) -> str:
    """The text; of an answer without the end tokens that some data sets carry there: one is written anyway."""
    content = message.content or ""
    for end in (template.end_token, template.named_tokens["eos_token"]) * 2 if message.role == "assistant" else ():
        if content.rstrip().endswith(end):
            content = content.rstrip().removesuffix(end)
    return content


def _as_dict(template: Template, message: Message) -> dict[str, Any]:
    """A message as chat templates read it; what it does not have is left out."""
    content = None if message.content is None else _without_end(template, message)
    calls = list(message.tool_calls) or None
    fields = {"content": content, "tool_calls": calls, "tool_call_id": message.tool_call_id, "name": message.name}
    return {"role": message.role, **{key: value for key, value in fields.items() if value is not None}}


def _masked(template: Template, message: dict[str, Any]) -> dict[str, Any]:
    """The message with the text of special tokens masked."""
    return {key: value if key == "role" else template.masks.mask(value) for key, value in message.items()}
