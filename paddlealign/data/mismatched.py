"""Answers to other prompts: what KTO estimates the policy's distance from the reference with."""

import hashlib
from dataclasses import replace

import numpy as np

from paddlealign.data.examples import SEGMENT, Examples
from paddlealign.errors import UserError


def with_mismatched(examples: Examples, prompts: np.ndarray, max_length: int) -> Examples:
    """Each example with a second response: the answer of the nearest row before it in a shuffled order that has another prompt.

    Shuffled, since of rows that were pairs the one before is always a rejected answer: the estimate needs answers of both kinds, as often
    as the rows have them. The order is fixed, so the two stay together in every epoch and a reference's log-probs can be kept. Before the
    first row comes the last one. The answer is cut where prompt and answer have max_length tokens. No token is copied.
    prompts: uint64 [examples]; of ``prompt_digest``. Raises UserError where all rows have one prompt.
    """
    if len(examples) and (prompts == prompts[0]).all():
        raise UserError("loss_type kto: all rows have the same prompt; it needs answers to other prompts too")
    order = np.random.default_rng(0).permutation(len(examples))
    place, shuffled = np.arange(len(order)), prompts[order]
    # In a run of equal prompts all rows take the answer before the run; a run may go on from the end of the order to its beginning.
    changes = shuffled != np.roll(shuffled, 1)
    last_change = np.maximum.accumulate(np.where(changes, place, -1))
    last_change[last_change < 0] = place[changes][-1] if changes.any() else 0
    other = np.empty_like(order)
    other[order] = order[last_change - 1]

    segments = np.zeros((len(examples), 3), SEGMENT)
    first = examples.first[:-1]
    segments[:, 0], segments[:, 1] = examples.segments[first], examples.segments[first + 1]
    segments[:, 2] = segments[other, 1]
    room = max_length - segments[:, 0]["length"]
    segments[:, 2]["length"] = np.minimum(segments[:, 2]["length"], room)
    first = np.arange(len(examples) + 1, dtype=np.int64) * 3
    return replace(examples, segments=segments.reshape(-1), first=first, margins=np.zeros(len(examples)))


def prompt_digest(prompt_ids: np.ndarray) -> int:
    """64 bits by which the tokens of two prompts are compared."""
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(prompt_ids, np.int32).tobytes(), digest_size=8).digest(), "little")
