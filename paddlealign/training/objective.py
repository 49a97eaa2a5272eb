"""Objectives as the loop sees them: scores of a batch in, sums out, and what to divide the sums by."""

from collections.abc import Callable
from dataclasses import dataclass

from paddle import Tensor

from paddlealign.data.example import Batch
from paddlealign.objectives.preference import dpo_loss
from paddlealign.objectives.response import response_logps
from paddlealign.objectives.result import ObjectiveSums
from paddlealign.objectives.sft import sft_loss
from paddlealign.training.score import Scores

Reference = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Objective:
    """A loss and its denominator.

    loss: the sums over a batch. count: how many tokens (SFT) or pairs (DPO) a batch sums over; known before any computation, so that a step
    can weigh its micro-batches exactly.
    """

    loss: Callable[[Scores, Batch], ObjectiveSums]
    count: Callable[[Batch], int]


def sft_objective() -> Objective:
    """Cross-entropy per scored token."""
    return Objective(lambda scores, batch: sft_loss(scores.token_logps, scores.correct), lambda batch: len(batch.target_ids))


def dpo_objective(reference: Reference, beta: float, label_smoothing: float) -> Objective:
    """DPO per pair against ``reference``, which gives a batch's reference log-probs as float32 [2 pairs]."""

    def loss(scores: Scores, batch: Batch) -> ObjectiveSums:
        policy = response_logps(scores.token_logps, scores.owner, scores.responses)
        return dpo_loss(policy, reference(batch), beta, label_smoothing)

    return Objective(loss, lambda batch: len(batch.example_ids))
