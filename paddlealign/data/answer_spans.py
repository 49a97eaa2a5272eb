"""Where the answers stand in a rendered conversation: found by comparing it with the same conversation that holds marks in their places.

What does not fit is refused, or for an earlier turn left unscored, and never guessed at.
"""

import re
from dataclasses import dataclass

# Characters for private use: no data holds them, no template treats them as anything but text.
_MARK = "\ue000answer-{}\ue001"
_MARK_PATTERN = re.compile("\ue000answer-\\d+\ue001")


Span = tuple[int, int]  # the characters from the first up to the second


class RowRefusedError(Exception):
    """A row that the template cannot render, or whose answer cannot be found in the rendered text. The text is the reason."""


@dataclass(frozen=True)
class Rendered:
    """A conversation with one response as text.

    spans: what is scored, in order; a turn includes its end token. The last ends where the text ends.
    boundary: where the first span begins; what lies before is the prompt.
    altered_turns: earlier assistant turns that the template changes (as those that drop <think> from them), left unscored.
    masked: see ``FramedText``.
    """

    text: str
    spans: tuple[Span, ...]
    boundary: int
    altered_turns: int = 0
    masked: str | None = None


@dataclass(frozen=True)
class Ends:
    """What ends a turn.

    any: matches every special token that may. closing: matches those that the template and the tokenizer do end turns and texts with; no
    text of the data holds one. eos: what is written where the template writes none.
    """

    any: re.Pattern[str]
    closing: re.Pattern[str]
    eos: str


@dataclass(frozen=True)
class CallingTurn:
    """An assistant's turn that calls tools.

    names: of the functions. opening: what a generation prompt adds before the turn. head: where it adds nothing, the turn's text up to the
    first name.
    """

    names: tuple[str, ...]
    opening: str
    head: str


def mark(number: int) -> str:
    """A text that stands for an answer."""
    return _MARK.format(number)


def split_at_marks(text: str) -> list[str]:
    """What stands before, between and after the marks in a rendered text."""
    return _MARK_PATTERN.split(text)


def locate_answer(
    ends: Ends, whole: str, prompts: list[str], frame: list[str], turns: list[str], response: str
) -> tuple[str, list[Span | None]]:
    """The text up to the response's end token, and the spans of all answers in it; None for earlier ones that the template alters.

    frame: what the template writes before, between and after the answers (n + 2 texts for n earlier turns and the response).
    turns: the earlier answers that are scored. prompts: the text with the generation prompt before each answer.
    """
    tail, prompt = frame[-1], prompts[-1]
    if not whole.endswith(tail):
        raise RowRefusedError("the chat template ends differently depending on the answer; the end of the answer cannot be found")
    spans, cursor = locate_turns(ends, whole, prompts, frame, turns)
    content_end = len(whole) - len(tail)
    framed = whole.startswith(frame[-2], cursor)
    frame_start = cursor + (len(frame[-2]) if framed else common_length(whole[cursor:content_end], frame[-2]))
    if whole.startswith(prompt) and cursor <= len(prompt) <= content_end:
        start = len(prompt)  # what generation starts from decides, also where the template puts more before an answer
    elif framed:
        start = frame_start
    else:
        raise RowRefusedError("the chat template's generation prompt is no beginning of the whole text; the answer's start cannot be found")
    if not holds(whole[min(start, frame_start) : content_end], response):
        raise RowRefusedError("the chat template drops a part of the answer (set chat_template to one that keeps it)")
    ending = _through_end(ends, tail)
    if ending:
        text = whole[:content_end] + ending
    else:
        text = whole[:content_end] + tail.rstrip() + ends.eos
    return text, [*spans, (start, len(text))]


def locate_turns(ends: Ends, whole: str, prompts: list[str], frame: list[str], turns: list[str]) -> tuple[list[Span | None], int]:
    """The spans of the earlier answers, None for those that are not found as they are; and where the last one's content ends."""
    spans: list[Span | None] = []
    cursor = 0
    for number, content in enumerate(turns):
        before, after = frame[number], frame[number + 1]
        if not whole.startswith(before, cursor):
            return spans + [None] * (len(turns) - number), cursor
        start = cursor + len(before)
        ending = _through_end(ends, after)
        # The last text before the response may differ (a template may add to it), so it is held to its end token only.
        follows = ending or after
        fitting = next((text for text in (content, content.strip()) if whole.startswith(text + follows, start)), None)
        if fitting is None:
            cursor = whole.find(after, start)
            if cursor < 0:
                return spans + [None] * (len(turns) - number), start
            spans.append(None)
            continue
        generated = whole.startswith(prompts[number]) and cursor <= len(prompts[number]) <= start
        cursor = start + len(fitting)
        spans.append((len(prompts[number]) if generated else start, cursor + len(ending)))
    return spans, cursor


def locate_calls(ends: Ends, whole: str, frame: list[str], turns: list[CallingTurn]) -> list[Span | None]:
    """The spans of all turns that call tools, None for those that are not found.

    frame: what the template writes before, between and after the functions' names.
    """
    places, cursor = [], 0
    for before, name in zip(frame, [name for turn in turns for name in turn.names], strict=False):
        if not whole.startswith(before + name, cursor):
            return [None] * len(turns)
        places.append(cursor + len(before))
        cursor += len(before) + len(name)
    spans: list[Span | None] = []
    for turn in turns:
        own, places = places[: len(turn.names)], places[len(turn.names) :]
        start = whole.rfind(turn.opening, 0, own[0])
        if not turn.opening:
            start = own[0] - len(turn.head) if turn.head and whole[: own[0]].endswith(turn.head) else -1
        start += len(turn.opening) if start >= 0 else 0
        end = ends.closing.search(whole, own[-1] + len(turn.names[-1]))
        # An end token between the opening and the call would mean that the opening is that of an earlier turn.
        found = start >= 0 and end is not None and not ends.closing.search(whole, start, own[0])
        spans.append((start, end.end()) if found and end else None)
    return spans


def common_length(first: str, second: str) -> int:
    """How many characters two texts have in common at their beginning."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _through_end(ends: Ends, text: str) -> str:
    """The text up to and with its first end token; empty where it holds none."""
    match = ends.any.search(text)
    return text[: match.end()] if match else ""


def holds(text: str, response: str) -> bool:
    """Whether the response stands in the text; white space may differ."""
    return response in text or "".join(response.split()) in "".join(text.split())
