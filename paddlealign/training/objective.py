"""Objectives as the loop sees them: scores of a batch in, sums out, and what to divide the sums by."""

from collections.abc import Callable
from dataclasses import dataclass

from paddle import Tensor

from paddlealign.data.example import Batch
from paddlealign.objectives.preference import dpo_loss
from paddlealign.objectives.response import response_logps
from paddlealign.objectives.result import ObjectiveSums
from paddlealign.objectives.reward import reward_loss
from paddlealign.objectives.sft import sft_loss
from paddlealign.training.score import Scores

Reference = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Objective:
    """A loss, what it is held against, and its denominator.

    reference: what a frozen reference says of a batch, float32 [responses], or the margins of its pairs, float32 [pairs]; None where
    there is neither. All stages of a pipeline call it, before the batch goes through them. loss: the sums over a batch, from the scores and
    what ``reference`` gave. count: how many tokens (SFT) or pairs (DPO, reward) a batch sums over; known before any computation, so that a
    step can weigh its micro-batches exactly.
    """

    reference: Callable[[Batch], Tensor | None]
    loss: Callable[[Scores, Tensor | None], ObjectiveSums]
    count: Callable[[Batch], int]


def sft_objective() -> Objective:
    """Cross-entropy per scored token."""
    return Objective(
        reference=lambda batch: None,
        loss=lambda scores, _: sft_loss(scores.token_logps, scores.correct),
        count=lambda batch: len(batch.target_ids),
    )


def dpo_objective(reference: Reference, beta: float, label_smoothing: float) -> Objective:
    """DPO per pair against ``reference``, which gives a batch's reference log-probs as float32 [2 pairs]."""

    def loss(scores: Scores, reference_logps: Tensor | None) -> ObjectiveSums:
        assert reference_logps is not None
        policy = response_logps(scores.token_logps, scores.owner, scores.responses)
        return dpo_loss(policy, reference_logps, beta, label_smoothing)

    return Objective(reference, loss, lambda batch: len(batch.example_ids))


def reward_objective(margins: Reference, center_rewards_coefficient: float) -> Objective:
    """Bradley-Terry per pair; ``margins`` gives those of a batch's pairs, float32 [pairs]."""

    def loss(scores: Scores, batch_margins: Tensor | None) -> ObjectiveSums:
        assert batch_margins is not None
        return reward_loss(scores.rewards, batch_margins, center_rewards_coefficient)

    return Objective(margins, loss, lambda batch: len(batch.example_ids))
