"""A conversation as one text, with the places in it that are scored.

A chat template is a program: it may strip, drop or add text around what it is given. So the places are found by rendering the same
conversation with marks instead of the answers and by comparing; where that does not fit, the row is refused and never guessed at.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2

from paddlealign.data.example import Message, Record
from paddlealign.data.jinja_template import compile_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError

# Characters for private use: no data holds them, no template treats them as anything but text.
_MARK = "\ue000answer-{}\ue001"
_MARK_PATTERN = re.compile("\ue000answer-\\d+\ue001")


class RowRefusedError(Exception):
    """A row that the template cannot render, or whose answer cannot be found in the rendered text. The text is the reason."""


@dataclass(frozen=True)
class Rendered:
    """A conversation with one response as text.

    spans: (start, end) characters that are scored, in order; each includes the turn's end token. The last ends where the text ends.
    boundary: where the first response begins; what lies before is the prompt.
    altered_turns: earlier assistant turns that the template changes (as those that drop <think> from them), left unscored.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    boundary: int
    altered_turns: int = 0


@dataclass(frozen=True)
class Template:
    """How conversations become text. ``compiled`` None: the turns are joined as they are, with an EOS after every answer.

    name: "none", "tokenizer" or the file, for messages. end_token: what ends an assistant's turn. end_pattern: matches any special
    token that may end one. stop_ids: the ids that end a generated answer. reserved: the special tokens that only the template and the
    tokenizer write (BOS and whatever ends a turn or a text): a text of the data that holds one is refused.
    """

    name: str
    compiled: jinja2.Template | None
    named_tokens: dict[str, str]
    end_token: str
    end_pattern: re.Pattern[str]
    stop_ids: tuple[int, ...]
    reserved: tuple[str, ...]
    fingerprint: str


def load_template(tokenizer: Tokenizer, choice: str = "auto") -> Template:
    """The template of the ``chat_template`` key: "auto" (the tokenizer's, else none), "none", or the path of a jinja file."""
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
    ends = sorted({*ends, tokenizer.eos_token}, key=len, reverse=True)
    template = Template(
        name=name,
        compiled=None if source is None else compile_template(source, name),
        named_tokens=tokenizer.named_tokens,
        end_token=tokenizer.eos_token,
        end_pattern=re.compile("|".join(re.escape(text) for text in ends)),
        stop_ids=tokenizer.stop_ids,
        reserved=(),
        fingerprint=hashlib.sha256((source or "").encode()).hexdigest(),
    )
    end_token = _find_end_token(template)
    end_id = tokenizer.special_tokens.get(end_token, tokenizer.eos_id)
    stop_ids = tuple(dict.fromkeys([*tokenizer.stop_ids, end_id]))
    stops = [text for text, index in tokenizer.special_tokens.items() if index in stop_ids]
    named = [tokenizer.named_tokens[key] for key in ("bos_token", "eos_token") if key in tokenizer.named_tokens]
    return replace(template, end_token=end_token, stop_ids=stop_ids, reserved=tuple(dict.fromkeys([*named, end_token, *stops])))


def render(template: Template, record: Record) -> tuple[Rendered, ...]:
    """The text of the record's conversation with each of its responses. Raises RowRefusedError."""
    for response in record.responses:
        _refuse_reserved(template, [*record.messages, Message("assistant", response)])
    if template.compiled is None or not record.messages:
        return tuple(_join(template, record, response) for response in record.responses)
    messages = [_as_dict(template, message) for message in record.messages]
    scored = [i for i, message in enumerate(messages) if message["role"] == "assistant"] if record.score_all_turns else []
    marked = [{**message, "content": _MARK.format(i)} if i in scored else message for i, message in enumerate(messages)]
    answer = {"role": "assistant", "content": _MARK.format(len(messages))}
    frame = _MARK_PATTERN.split(_run(template, marked + [answer]))
    if len(frame) != len(scored) + 2:
        raise RowRefusedError("the chat template does not show every assistant turn exactly once")
    prompts = [_run(template, messages[:i], add_generation_prompt=True) for i in [*scored, len(messages)]]
    turns = [messages[i]["content"] for i in scored]
    result = []
    for response in record.responses:
        answer = _as_dict(template, Message("assistant", response))
        result.append(_locate(template, _run(template, messages + [answer]), prompts, frame, turns, answer["content"]))
    return tuple(result)


def render_prompt(template: Template, messages: Sequence[Message]) -> str:
    """The text after which the model is to answer. Raises RowRefusedError."""
    _refuse_reserved(template, messages)
    if template.compiled is None or not messages:
        return _join_turns(template, messages)[0]
    return _run(template, [_as_dict(template, message) for message in messages], add_generation_prompt=True)


def _refuse_reserved(template: Template, messages: Sequence[Message]) -> None:
    """Refuse texts that would become a BOS or an end token in the middle of a row.

    An end token at the end of an answer is allowed, and so is the BOS at the beginning of a text that no template frames: each stands
    where one is written anyway, and is written once.
    """
    texts = [_without_end(template, message.content) if message.role == "assistant" else message.content for message in messages]
    if texts and (template.compiled is None or (len(messages) == 1 and messages[0].role == "assistant")):
        texts[0] = texts[0].removeprefix(template.named_tokens.get("bos_token", ""))
    for token in template.reserved:
        if any(token in text for text in texts):
            raise RowRefusedError(f"the text holds the special token {token} (remove it from the text)")


def _locate(template: Template, whole: str, prompts: list[str], frame: list[str], turns: list[str], response: str) -> Rendered:
    """Find the answers in the whole text.

    frame: what the template writes before, between and after the answers (n + 2 texts for n earlier turns and the response).
    turns: the earlier answers that are scored. prompts: the text with the generation prompt before each answer.
    """
    tail, prompt = frame[-1], prompts[-1]
    if not whole.endswith(tail):
        raise RowRefusedError("the chat template ends differently depending on the answer; the end of the answer cannot be found")
    spans, cursor, altered = _locate_turns(template, whole, prompts, frame, turns)
    content_end = len(whole) - len(tail)
    framed = whole.startswith(frame[-2], cursor)
    frame_start = cursor + (len(frame[-2]) if framed else _common_length(whole[cursor:content_end], frame[-2]))
    if whole.startswith(prompt) and cursor <= len(prompt) <= content_end:
        start = len(prompt)  # what generation starts from decides, also where the template puts more before an answer
    elif framed:
        start = frame_start
    else:
        raise RowRefusedError("the chat template's generation prompt is no beginning of the whole text; the answer's start cannot be found")
    if not _holds(whole[min(start, frame_start) : content_end], response):
        raise RowRefusedError("the chat template drops a part of the answer (set chat_template to one that keeps it)")
    ending = _through_end(template, tail)
    if ending:
        text = whole[:content_end] + ending
    else:
        text = whole[:content_end] + tail.rstrip() + template.named_tokens["eos_token"]
    spans.append((start, len(text)))
    return Rendered(text, tuple(spans), spans[0][0], altered)


def _locate_turns(
    template: Template, whole: str, prompts: list[str], frame: list[str], turns: list[str]
) -> tuple[list[tuple[int, int]], int, int]:
    """The spans of the earlier answers, where the last one's content ends, and how many were not found as they are."""
    spans: list[tuple[int, int]] = []
    cursor = 0
    for number, content in enumerate(turns):
        before, after = frame[number], frame[number + 1]
        if not whole.startswith(before, cursor):
            return spans, cursor, len(turns) - len(spans)
        start = cursor + len(before)
        ending = _through_end(template, after)
        # The last text before the response may differ (a template may add to it), so it is held to its end token only.
        follows = ending or after
        fitting = next((text for text in (content, content.strip()) if whole.startswith(text + follows, start)), None)
        if fitting is None:
            cursor = whole.find(after, start)
            if cursor < 0:
                return spans, start, len(turns) - len(spans)
            continue
        generated = whole.startswith(prompts[number]) and cursor <= len(prompts[number]) <= start
        cursor = start + len(fitting)
        spans.append((len(prompts[number]) if generated else start, cursor + len(ending)))
    return spans, cursor, len(turns) - len(spans)


def _common_length(first: str, second: str) -> int:
    """How many characters two texts have in common at their beginning."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _through_end(template: Template, text: str) -> str:
    """The text up to and with its first end token; empty where it holds none."""
    match = template.end_pattern.search(text)
    return text[: match.end()] if match else ""


def _holds(text: str, response: str) -> bool:
    """Whether the response stands in the text; white space may differ."""
    return response in text or "".join(response.split()) in "".join(text.split())


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
            text += _without_end(template, message.content) + template.named_tokens["eos_token"]
            answers.append((start, len(text)))
        else:
            text += message.content
    return text, answers


def _without_end(template: Template, content: str) -> str:
    """An answer without the end token that some data sets carry in their texts: it is written once, here."""
    for end in {template.end_token, template.named_tokens["eos_token"]}:
        if content.rstrip().endswith(end):
            return content.rstrip().removesuffix(end)
    return content


def _as_dict(template: Template, message: Message) -> dict[str, str]:
    content = _without_end(template, message.content) if message.role == "assistant" else message.content
    return {"role": message.role, "content": content}


def _run(template: Template, messages: list[dict[str, str]], add_generation_prompt: bool = False) -> str:
    assert template.compiled is not None
    try:
        return template.compiled.render(
            messages=messages, tools=None, documents=None, add_generation_prompt=add_generation_prompt, **template.named_tokens
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise RowRefusedError(f"the chat template raises: {error}") from None


def _find_end_token(template: Template) -> str:
    """What the template writes after an answer, up to its first special token; the EOS where it writes none."""
    if template.compiled is None:
        return template.end_token
    question = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK.format(0)}]
    try:
        tail = _MARK_PATTERN.split(_run(template, question))[-1]
    except RowRefusedError:
        return template.end_token
    match = template.end_pattern.search(tail)
    return match.group() if match else template.end_token
