"""An example as text for people: what a model sees, and which of its tokens are scored."""

from collections.abc import Iterator, Sequence

import numpy as np

from paddlealign.data.example import Example
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.messages.language import translated

# What a terminal shows: (scored, control token) -> the code of its colour.
_CODES = {(False, False): "2", (False, True): "36", (True, False): "32", (True, True): "1;4;32"}
_CONTEXT = 8  # tokens in front of a piece that it is decoded with
_SOUGHT = 1000


def describe(
    example: Example, tokenizer: Tokenizer, colour: bool = False, pair: tuple[str, str] = ("chosen", "rejected"), most: int = 800
) -> str:
    """The example as text for people; see ``legend``. pair: what two responses are. most: of a longer text its two ends are shown."""
    prompt = example.prompt_ids
    ids, unscored = prompt.tolist(), np.zeros(len(prompt), bool)
    lines = [f"{translated(f'prompt ({len(ids):,} tokens):')} {''.join(_pieces(ids, 0, unscored, tokenizer, colour, most))}"]
    names = pair if len(example.responses) == 2 else ("response",) * len(example.responses)
    for name, response in zip(names, example.responses, strict=True):
        whole, scored = [*ids, *response.token_ids.tolist()], np.concatenate([unscored, response.scored])
        text = "".join(_pieces(whole, len(ids), scored, tokenizer, colour, most))
        lines.append(f"{translated(f'{name} ({len(response.token_ids):,} tokens, {int(response.scored.sum()):,} scored):')} {text}")
    return "\n".join(lines)


def legend(colour: bool, scored: str = "scored") -> str:
    """What the colours or the brackets of ``describe`` mean. scored: the word for what is marked."""
    if not colour:
        return "⟦ ⟧ stand around what is scored" if scored == "scored" else f"⟦ ⟧ stand around what is {scored}"
    words = {(False, False): "read only", (True, False): scored, (False, True): "control token", (True, True): f"control token, {scored}"}
    return ", ".join(f"\x1b[{_CODES[kind]}m{translated(word)}\x1b[0m" for kind, word in words.items())


def telling(examples: Sequence[Example]) -> Example:
    """An example that shows most: the first of several turns with tokens between them that are not scored; else the first."""
    for index in range(min(len(examples), _SOUGHT)):
        example = examples[index]
        if any(response.scored.any() and not response.scored.all() for response in example.responses):
            return example
    return examples[0]


def _pieces(ids: list[int], first: int, scored: np.ndarray, tokenizer: Tokenizer, colour: bool, most: int) -> Iterator[str]:
    """The text from token ``first`` on, in pieces of one kind each."""
    special = set(tokenizer.special_tokens.values())
    kinds = [(bool(on), colour and index in special) for index, on in zip(ids[first:], scored[first:], strict=True)]
    left_out = range(first + most // 2, len(ids) - most // 2) if len(ids) - first > most else range(0)
    start = first
    while start < len(ids):
        if start in left_out:
            yield translated(f" [... {len(left_out):,} tokens ...] ")
            start = left_out.stop
        end = start + 1
        while end < len(ids) and end != left_out.start and kinds[end - first] == kinds[start - first]:
            end += 1
        yield _coloured(_text(ids, start, end, tokenizer), kinds[start - first], colour)
        start = end


def _text(ids: list[int], start: int, end: int, tokenizer: Tokenizer) -> str:
    """Decoded with what stands before it: a decoder drops the space at the start of a text, and a space belongs to its token."""
    context = ids[max(start - _CONTEXT, 0) : start]
    before = tokenizer.decode(context, skip_special=False)
    return tokenizer.decode(context + ids[start:end], skip_special=False)[len(before.rstrip("\ufffd")) :]


def _coloured(text: str, kind: tuple[bool, bool], colour: bool) -> str:
    if colour:
        return f"\x1b[{_CODES[kind]}m{text}\x1b[0m"
    return f"⟦{text}⟧" if kind[0] else text
