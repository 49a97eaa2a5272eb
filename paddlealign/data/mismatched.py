"""Answers to other prompts: what KTO estimates the policy's distance from the reference with."""

from collections.abc import Sequence

import numpy as np

from paddlealign.data.example import Example, Response
from paddlealign.errors import UserError


def with_mismatched(examples: Sequence[Example], max_length: int) -> list[Example]:
    """Each example with a second response: the answer of the nearest row before it in a shuffled order that has another prompt.

    Shuffled, since of rows that were pairs the one before is always a rejected answer: the estimate needs answers of both kinds, as often
    as the rows have them. The order is fixed, so the two stay together in every epoch and a reference's log-probs can be kept. Before the
    first row comes the last one. The answer is cut where prompt and answer have max_length tokens.
    Raises UserError where all rows have one prompt.
    """
    order = np.random.default_rng(0).permutation(len(examples))
    found: list[Example] = list(examples)
    for place, index in enumerate(order):
        example = examples[index]
        before = (examples[order[place - back]] for back in range(1, len(examples)))
        other = next((it for it in before if not np.array_equal(it.prompt_ids, example.prompt_ids)), None)
        if other is None:
            raise UserError("loss_type kto: all rows have the same prompt; it needs answers to other prompts too")
        room = max_length - len(example.prompt_ids)
        answer = other.responses[0]
        found[index] = Example(example.prompt_ids, (example.responses[0], Response(answer.token_ids[:room], answer.scored[:room])))
    return found
