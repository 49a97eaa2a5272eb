"""What makes training cheaper than its formulas read, one switch each. A run has all of it or, under ``plain_path``, none."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tricks:
    """Which of them are on. Each alone changes a number by rounding at most; tests switch them off one at a time.

    shared_prompt: a prompt is laid down once for all its responses. packed_rows: what a micro-batch holds lies in one row. scored_head: the
    head, and the last layer behind its attention, meet scored positions alone. chunked_head: logits exist for a part of the rows at a
    time and are made again in backward.
    blockwise_attention: scores exist for a block of queries at a time, against visible keys alone. fused_norm, fused_rotary, fused_swiglu:
    one step with a backward of its own each. What is not on is computed by ``models.plain``.
    """

    shared_prompt: bool
    packed_rows: bool
    scored_head: bool
    chunked_head: bool
    blockwise_attention: bool
    fused_norm: bool
    fused_rotary: bool
    fused_swiglu: bool


ALL_TRICKS = Tricks(True, True, True, True, True, True, True, True)
NO_TRICKS = Tricks(False, False, False, False, False, False, False, False)


def chosen_tricks(plain_path: bool) -> Tricks:
    """Those of a run, as its key ``plain_path`` says."""
    return NO_TRICKS if plain_path else ALL_TRICKS
