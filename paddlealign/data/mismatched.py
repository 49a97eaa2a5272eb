"""Answers to other prompts: what KTO estimates the policy's distance from the reference with."""

from collections.abc import Sequence

import numpy as np

from paddlealign.data.example import Example, Response
from paddlealign.errors import UserError


def with_mismatched(examples: Sequence[Example], max_length: int) -> list[Example]:
    """Each example with a second response: the answer of the nearest row before it that has another prompt, cut to max_length.

    Before the first row comes the last one. The pairs are the same in every epoch, so that a reference's log-probs can be kept.
    Raises UserError where all rows have one prompt, or a prompt leaves no room for a token.
    """
    found = []
    for index, example in enumerate(examples):
        other = next(
            (
                examples[index - back]
                for back in range(1, len(examples))
                if not np.array_equal(examples[index - back].prompt_ids, example.prompt_ids)
            ),
            None,
        )
        if other is None:
            raise UserError("loss_type kto: all rows have the same prompt; it needs answers to other prompts too")
        room = max_length - len(example.prompt_ids)
        answer = other.responses[0].token_ids[:room]
        found.append(Example(example.prompt_ids, (example.responses[0], Response(answer, np.ones(len(answer), bool)))))
    return found
