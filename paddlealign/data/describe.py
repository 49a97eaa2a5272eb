"""An example as text for people: what a model sees, and which of its tokens are scored."""

import numpy as np

from paddlealign.data.example import Example
from paddlealign.data.tokenizer import Tokenizer


def describe(example: Example, tokenizer: Tokenizer, colour: bool = False, pair: tuple[str, str] = ("chosen", "rejected")) -> str:
    """The example as text for people; scored tokens stand in ⟦ ⟧, or are green where ``colour`` is set. pair: what two responses are."""
    opening, closing = ("\x1b[32m", "\x1b[0m") if colour else ("⟦", "⟧")
    prompt = tokenizer.decode(example.prompt_ids, skip_special=False)
    lines = [f"prompt ({len(example.prompt_ids)} tokens): {prompt}"]
    names = pair if len(example.responses) == 2 else ("response",) * len(example.responses)
    for name, response in zip(names, example.responses, strict=True):
        edges = np.flatnonzero(np.diff(response.scored.astype(np.int8))) + 1
        text, before = "", prompt
        for end, scored in zip([*edges, len(response.scored)], response.scored[[0, *edges]], strict=True):
            # Decoded with all that stands before it: a decoder drops the space at the start of a text, and a space belongs to its token.
            whole = tokenizer.decode(np.concatenate([example.prompt_ids, response.token_ids[:end]]), skip_special=False)
            piece, before = whole[len(before.rstrip("\ufffd")) :], whole
            text += f"{opening}{piece}{closing}" if scored else piece
        lines.append(f"{name} ({len(response.token_ids)} tokens, {int(response.scored.sum())} scored): {text}")
    return "\n".join(lines)
