"""An example as text for people: what a model sees, and which of its tokens are scored."""

import numpy as np

from paddlealign.data.example import Example
from paddlealign.data.tokenizer import Tokenizer


def describe(example: Example, tokenizer: Tokenizer, colour: bool = False) -> str:
    """The example as text for people; scored tokens stand in ⟦ ⟧, or are green where ``colour`` is set."""
    opening, closing = ("\x1b[32m", "\x1b[0m") if colour else ("⟦", "⟧")
    lines = [f"prompt ({len(example.prompt_ids)} tokens): {tokenizer.decode(example.prompt_ids, skip_special=False)}"]
    names = ("chosen", "rejected") if len(example.responses) == 2 else ("response",) * len(example.responses)
    for name, response in zip(names, example.responses, strict=True):
        edges = np.flatnonzero(np.diff(response.scored.astype(np.int8))) + 1
        text = ""
        for part, scored in zip(np.split(response.token_ids, edges), np.split(response.scored, edges), strict=True):
            piece = tokenizer.decode(part, skip_special=False)
            text += f"{opening}{piece}{closing}" if scored[0] else piece
        lines.append(f"{name} ({len(response.token_ids)} tokens, {int(response.scored.sum())} scored): {text}")
    return "\n".join(lines)
