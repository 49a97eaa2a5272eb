"""Records to examples: the one place where text becomes tokens and where rows are cut.

Prompt and response are tokenised as ONE text. A token that lies on both sides of the boundary belongs to the response, so no
token differs from what the model would see in the whole text.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from paddlealign.data.answer_spans import Rendered, RowRefusedError
from paddlealign.data.encoding_report import Encoded, EncodingReport, Refusal
from paddlealign.data.example import Example, Record, Response
from paddlealign.data.examples import Examples
from paddlealign.data.literal_text import FramedText
from paddlealign.data.rendering import render, render_prompt
from paddlealign.data.template import Template
from paddlealign.data.token_models import Tokens
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError

TRUNCATIONS = ("drop", "truncate_prompt", "truncate_response", "error")
_CHUNK = 512
_NOT_TEXT = "the row holds the text of a special token, which this tokenizer cannot keep as text (remove it from the row)"


@dataclass(frozen=True)
class Limits:
    """How long a row may be, in tokens, and what happens to longer ones.

    max_length: most tokens of the prompt and ONE response. src_length: most tokens of the prompt, the BOS counted; None: only
    max_length bounds it.
    truncation: "drop" leaves longer rows out; "error" stops; "truncate_prompt" cuts the prompt at its start (the BOS stays) and
    leaves the row out where the responses alone are too long; "truncate_response" cuts the responses at their end and leaves the
    row out where the prompt alone is too long. Each of the last two touches only what it names.
    """

    max_length: int
    src_length: int | None = None
    truncation: str = "drop"


@dataclass(frozen=True)
class EncodedSet:
    """All examples of a few rows, in memory. kept: int64 [examples], the index of the record that each comes from."""

    examples: Examples
    kept: np.ndarray
    report: EncodingReport


class EncodedPrompt(NamedTuple):
    """A prompt to answer. ids: int32 [n]. cut: whether its start was cut off."""

    ids: np.ndarray
    cut: bool


def encode(record: Record, tokenizer: Tokenizer, template: Template, limits: Limits) -> Encoded | Refusal:
    """One record with responses to one example, or the reason why not. Raises UserError if it is too long and truncation is "error"."""
    return next(encode_records([record], tokenizer, template, limits))


def encode_all(records: Sequence[Record], tokenizer: Tokenizer, template: Template, limits: Limits, progress: bool = False) -> EncodedSet:
    """All records to examples, with the counts. Raises UserError if none is left."""
    if limits.truncation not in TRUNCATIONS:
        raise UserError(f"truncation: {limits.truncation!r} is not one of {', '.join(TRUNCATIONS)}.")
    report, examples, kept = EncodingReport(), [], []
    with tqdm(total=len(records), desc="encoding", unit="row", disable=not progress, leave=False) as bar:
        for start in range(0, len(records), _CHUNK):
            chunk = records[start : start + _CHUNK]
            for offset, outcome in enumerate(encode_records(chunk, tokenizer, template, limits)):
                report.count(chunk[offset].source, outcome)
                if isinstance(outcome, Encoded):
                    examples.append(outcome.example)
                    kept.append(start + offset)
            bar.update(len(chunk))
    if not examples:
        raise UserError(nothing_left(report, limits))
    return EncodedSet(Examples.of(examples), np.array(kept, np.int64), report)


def encode_prompt(record: Record, tokenizer: Tokenizer, template: Template, src_length: int | None = None) -> EncodedPrompt:
    """The ids after which the model is to answer the record's messages, cut at their start to src_length with the BOS kept.

    Raises UserError naming the row where the chat template cannot render it.
    """
    try:
        [tokens] = tokenizer.encode_framed([render_prompt(template, record.messages, record.tools)])
        if tokens is None:
            raise RowRefusedError(_NOT_TEXT)
    except RowRefusedError as error:
        raise UserError(f"{record.source}: {error}.") from None
    ids = _with_bos(tokens, tokenizer).ids
    if src_length is None or len(ids) <= src_length:
        return EncodedPrompt(ids, False)
    return EncodedPrompt(_cut_prompt(ids, src_length, tokenizer.bos_id), True)


def examples_hash(examples: Sequence[Example]) -> str:
    """A sha256 (hex) over all tokens and over which are scored: equal where a model's log-probs must be equal."""
    total = hashlib.sha256()
    for example in examples:
        parts = [example.prompt_ids] + [array for response in example.responses for array in (response.token_ids, response.scored)]
        total.update(np.array([len(part) for part in parts], np.int64).tobytes())
        for part in parts:
            total.update(np.ascontiguousarray(part, np.int32).tobytes())
    return total.hexdigest()


def encode_records(records: Sequence[Record], tokenizer: Tokenizer, template: Template, limits: Limits) -> Iterator[Encoded | Refusal]:
    """Render all, tokenise all at once (that is where the time goes), then lay out each."""
    rendered: list[tuple[Rendered, ...] | Refusal] = []
    for record in records:
        try:
            rendered.append(render(template, record))
        except RowRefusedError as error:
            rendered.append(Refusal(str(error)))
    texts = [FramedText(one.text, one.masked) for branches in rendered if not isinstance(branches, Refusal) for one in branches]
    tokens = iter(tokenizer.encode_framed(texts))
    for record, branches in zip(records, rendered, strict=True):
        if isinstance(branches, Refusal):
            yield branches
            continue
        found = [next(tokens) for _ in branches]
        tokenised = [_with_bos(one, tokenizer) for one in found if one is not None]
        if len(tokenised) < len(found):
            yield Refusal(_NOT_TEXT)
            continue
        example = replace(_lay_out(branches, tokenised, record.score_all_turns), margin=record.margin)
        outcome = _fit(example, limits, tokenizer.bos_id, record.source)
        if isinstance(outcome, Encoded):
            outcome = _refuse_useless(outcome, branches)
        yield outcome


def _with_bos(tokens: Tokens, tokenizer: Tokenizer) -> Tokens:
    """Exactly one BOS, where the tokenizer puts one: the template may have written it already."""
    if not tokenizer.add_bos or (len(tokens.ids) and tokens.ids[0] == tokenizer.bos_id):
        return tokens
    nothing = np.zeros(1, np.int32)
    ids = np.concatenate([np.array([tokenizer.bos_id], np.int32), tokens.ids])
    return Tokens(ids, np.concatenate([nothing, tokens.starts]), np.concatenate([nothing, tokens.ends]))


def _lay_out(branches: Sequence[Rendered], tokens: Sequence[Tokens], score_all_turns: bool) -> Example:
    """Prompt once, then the responses.

    The prompt is the longest common beginning of the branches' tokens that ends within the prompt's text. Where a branch merges a
    token over the boundary, the others' prompt tokens from there on belong to their responses and are scored too, so that all
    responses are continuations of one and the same prompt.
    """
    own = [_count_until(one.ends, branch.boundary) for one, branch in zip(tokens, branches, strict=True)]
    shared = _common_length([one.ids[:count] for one, count in zip(tokens, own, strict=True)])
    responses = []
    for one, branch, count in zip(tokens, branches, own, strict=True):
        scored = np.zeros(len(one.ids), bool)
        for start, end in branch.spans:
            scored |= (one.ends > start) & (one.ends <= end)
        if not score_all_turns:
            scored[shared:count] = True
        if shared == 0 and len(scored):
            scored[0] = False  # it has no predecessor
        responses.append(Response(one.ids[shared:], scored[shared:]))
    return Example(tokens[0].ids[:shared], tuple(responses))


def _count_until(ends: np.ndarray, boundary: int) -> int:
    """How many tokens end at or before the boundary, up to the first that does not."""
    later = np.flatnonzero(ends > boundary)
    return int(later[0]) if len(later) else len(ends)


def _common_length(ids: Sequence[np.ndarray]) -> int:
    shortest = min(len(one) for one in ids)
    equal = np.ones(shortest, bool)
    for one in ids[1:]:
        equal &= ids[0][:shortest] == one[:shortest]
    return shortest if equal.all() else int(np.argmin(equal))


def _fit(example: Example, limits: Limits, bos_id: int | None, source: str) -> Encoded | Refusal:
    """Hold an example to the limits by the truncation policy."""
    prompt = len(example.prompt_ids)
    longest = max(len(response.token_ids) for response in example.responses)
    most = limits.max_length if limits.src_length is None else min(limits.src_length, limits.max_length)
    if prompt <= most and prompt + longest <= limits.max_length:
        return Encoded(example)
    if limits.truncation == "error":
        raise UserError(
            f"{source}: the prompt has {prompt} tokens (src_length {limits.src_length}) and the longest response {longest}, together "
            f"{prompt + longest} (max_length {limits.max_length}). Raise the limit, shorten the row, or set truncation to "
            "drop, truncate_prompt or truncate_response."
        )
    if limits.truncation == "truncate_prompt":
        room = min(most, limits.max_length - longest)
        keeps_bos = bool(prompt) and example.prompt_ids[0] == bos_id
        if room > keeps_bos:
            return Encoded(replace(example, prompt_ids=_cut_prompt(example.prompt_ids, room, bos_id)), prompt_cut=prompt > room)
    if limits.truncation == "truncate_response" and prompt <= most and prompt < limits.max_length:
        room = limits.max_length - prompt
        cut = [_cut_response(response, room) for response in example.responses]
        count = sum(len(response.token_ids) > room for response in example.responses)
        return Encoded(replace(example, responses=tuple(cut)), responses_cut=count)
    return Refusal("too long", too_long=True, prompt=prompt, longest=prompt + longest)


def _cut_prompt(ids: np.ndarray, room: int, bos_id: int | None) -> np.ndarray:
    """The last ``room`` ids of a prompt, with a BOS at its start kept in the first place."""
    if len(ids) <= room:
        return ids
    if bos_id is not None and ids[0] == bos_id:
        return np.concatenate([ids[:1], ids[len(ids) - (room - 1) :]])
    return ids[len(ids) - room :]


def _cut_response(response: Response, room: int) -> Response:
    """The first ``room`` tokens, without a tail that is not scored. The end token goes with the rest: none is made up."""
    if len(response.token_ids) <= room:
        return response
    scored = response.scored[:room]
    length = int(np.flatnonzero(scored)[-1]) + 1 if scored.any() else 0
    return Response(response.token_ids[:length], scored[:length])


def _refuse_useless(encoded: Encoded, branches: Sequence[Rendered]) -> Encoded | Refusal:
    """Leave out what cannot teach: a response without a scored token, or a pair that is the same in tokens."""
    responses = encoded.example.responses
    if any(not response.scored.any() for response in responses):
        return Refusal("no scored token is left after cutting" if encoded.responses_cut else "no token to score")
    if len(responses) == 2 and np.array_equal(responses[0].token_ids, responses[1].token_ids):
        when = " after cutting" if encoded.responses_cut else " in tokens"
        return Refusal("chosen equals rejected" + when)
    special_text = any(branch.masked is not None for branch in branches)
    return replace(encoded, altered_turns=branches[0].altered_turns, special_text=special_text)


def nothing_left(report: EncodingReport, limits: Limits) -> str:
    """Why no example is left, for an error."""
    reasons = [f"{count} refused: {reason} (first: {report.refused_at[reason]})" for reason, count in report.refused.items()]
    if report.dropped_too_long:
        long = f"{report.dropped_too_long} too long for src_length {limits.src_length} and max_length {limits.max_length}"
        found = f"the longest prompt has {report.longest_prompt} tokens, the longest prompt and response {report.longest_row}"
        remedy = "raise src_length or max_length, or set truncation to truncate_prompt or truncate_response"
        reasons.append(f"{long} with truncation {limits.truncation} ({found}): {remedy}")
    return f"none of {report.rows} rows can be used: " + ("; ".join(reasons) or "there are none") + "."
