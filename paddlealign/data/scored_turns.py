"""Which of a conversation's answers are scored, and which characters of them: as the run asks, the row marks, and the template says."""

from collections.abc import Sequence
from typing import NamedTuple

from paddlealign.data.answer_spans import Ends, Rendered, RowRefusedError, Span
from paddlealign.data.example import Marks, Record


class Turn(NamedTuple):
    """An answer in a rendered text. span: with its end token; None where the template alters it. content: as the template got it."""

    span: Span | None
    content: str
    marks: Marks


def is_wanted(record: Record, marks: Marks) -> bool:
    """Whether a turn is scored: always in a pair; else unless the row says no, and under "marked" only where it says yes."""
    if not record.score_turns:
        return True
    return marks.wanted is True or (marks.wanted is None and record.score_turns != "marked")


def select(record: Record, ends: Ends, text: str, turns: Sequence[Turn], blocks: Sequence[Span] | None) -> Rendered:
    """The conversation with what is scored of it. turns: the earlier ones that are wanted, then the response.

    blocks: what the template says is scored, or None. They decide where they are: an answer's span becomes the blocks that it meets, and an
    answer without any is not scored. The text ends with the last scored character. Raises RowRefusedError where nothing is left.
    """
    kept = turns if is_wanted(record, record.marks) else turns[:-1]
    spans: list[Span] = []
    for turn in kept:
        own = [] if turn.span is None else [turn.span]
        if blocks is not None:
            own = [(start, min(end, len(text))) for start, end in blocks for span in own if start < span[1] and end > span[0]]
        if turn.marks.parts is not None and turn.span is not None and record.score_turns:
            parts = _part_spans(ends, text, turn.span, turn.content, turn.marks.parts)
            own = [(max(start, a), min(end, b)) for start, end in own for a, b in parts if max(start, a) < min(end, b)]
        spans += own
    if not spans:
        raise RowRefusedError(_nothing(record, blocks is not None and bool(kept)))
    altered = sum(turn.span is None for turn in kept)
    return Rendered(text[: spans[-1][1]], tuple(spans), spans[0][0], altered)


def _nothing(record: Record, by_template: bool) -> str:
    if by_template:
        return "the chat template's generation blocks leave no answer to score"
    if record.score_turns == "marked":
        return 'no answer is marked to be scored ("weight": 1 or "train": true; score_turns is marked)'
    return 'the row marks every answer that would be scored as not to be ("weight": 0 or "train": false)'


def _part_spans(ends: Ends, text: str, span: Span, content: str, parts: Sequence[Span]) -> list[Span]:
    """Where parts of an answer's content stand. The end token goes with the content's last character."""
    turn = text[span[0] : span[1]]
    ending = next((match.start() for match in ends.any.finditer(turn) if match.end() == len(turn)), len(turn))
    body, core = turn[:ending].rstrip(), content.strip()
    if not body.endswith(core):
        raise RowRefusedError("the marked parts of an answer (train_detail) cannot be found in what the chat template makes of it")
    kept = content.rstrip() if body.endswith(content.rstrip()) else core  # a template may strip
    start = span[0] + len(body) - len(kept)
    begin = start - (len(content.rstrip()) - len(kept))  # where the content's first character would stand
    places = [(max(begin + a, start), span[1] if b >= len(content) else begin + b) for a, b in parts]
    return [(a, b) for a, b in places if a < b]
