"""Objectives as the loop sees them: scores of a batch in, sums out, and what to divide the sums by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor

from paddlealign.data.example import Batch
from paddlealign.objectives.pairs import Coefficients
from paddlealign.objectives.preference import CHOSEN_TOKENS, PREFERENCE_LOSSES, preference_loss, step_context
from paddlealign.objectives.response import pair_weights, response_lengths, response_logps, verbose_weights
from paddlealign.objectives.result import PAIRS, ObjectiveSums
from paddlealign.objectives.reward import reward_loss
from paddlealign.objectives.sft import sft_loss
from paddlealign.objectives.unpaired import DESIRABLE, EXAMPLES, UNDESIRABLE, kl_estimate, kto_loss
from paddlealign.training.score import Scores

Reference = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class WholeStep:
    """What a loss needs that looks at all examples of a step at once; it costs a forward pass more, without a gradient.

    observe: what is to be known of a batch's examples, float64 [examples, any], from the scores and what ``Objective.reference`` gave.
    context: from that of all examples of the step, in any order, what the loss of each needs: [examples, any].
    """

    observe: Callable[[Scores, Tensor | None], np.ndarray]
    context: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Objective:
    """A loss, what it is held against, and its denominators.

    reference: what a batch is held against, such as the frozen reference's log-probs, float32 [responses], or the margins of its pairs,
    float32 [pairs]; None where there is nothing. All stages of a pipeline call it, before the batch goes through them. loss: the sums over
    a batch, from the scores, what ``reference`` gave, and the batch's rows of ``WholeStep.context`` (None where ``whole_step`` is). counts:
    by the names that the sums bear, how many tokens or pairs of a batch are summed over; known before any computation, so that a step can
    weigh its micro-batches exactly. collisions: whether ``Scores.collision_logps`` is needed.
    """

    reference: Callable[[Batch], Tensor | None]
    loss: Callable[[Scores, Tensor | None, Tensor | None], ObjectiveSums]
    counts: Mapping[str, Callable[[Batch], int]]
    whole_step: WholeStep | None = None
    collisions: bool = False


def sft_objective() -> Objective:
    """Cross-entropy per scored token."""
    return Objective(
        reference=lambda batch: None,
        loss=lambda scores, reference_logps, context: sft_loss(scores.token_logps, scores.correct),
        counts={"tokens": lambda batch: len(batch.target_ids)},
    )


def preference_objective(
    reference: Reference | None,
    weights: Mapping[str, float],
    numbers: Coefficients,
    ld_alpha: float = 1.0,
    use_weighting: bool = False,
) -> Objective:
    """Losses over pairs (``PREFERENCE_LOSSES``) with their weights, against a reference.

    reference: gives a batch's log-probs as float32 [2 pairs]; None where no loss has one. ld_alpha: see ``weighted_logps``.
    use_weighting: see ``objectives.response.pair_weights``.
    """

    def loss(scores: Scores, reference_logps: Tensor | None, context: Tensor | None) -> ObjectiveSums:
        lengths = response_lengths(scores.owner, scores.responses)
        seen = scores.collision_logps
        of_pairs = None if seen is None else pair_weights(scores.token_logps - seen, scores.owner, lengths)
        sides = weighted_logps(scores, ld_alpha), weighted_logps(scores, 1.0)
        return preference_loss(*sides, reference_logps, lengths, context, weights, numbers, of_pairs)

    def observe(scores: Scores, reference_logps: Tensor | None) -> np.ndarray:
        assert reference_logps is not None
        sides = [weighted_logps(scores, ld_alpha), reference_logps]
        return np.concatenate([side.numpy().reshape(-1, 2) for side in sides], 1).astype("float64")

    rows = [PREFERENCE_LOSSES[name] for name in weights]
    counts: dict[str, Callable[[Batch], int]] = {PAIRS: lambda batch: len(batch.example_ids)}
    if any(row.per == CHOSEN_TOKENS for row in rows):
        counts[CHOSEN_TOKENS] = lambda batch: int((batch.target_owner % 2 == 0).sum())
    whole = WholeStep(observe, lambda seen: step_context(seen[:, :2], seen[:, 2:], weights, numbers))
    asked = whole if any(row.context for row in rows) else None
    return Objective(reference or (lambda batch: None), loss, counts, asked, use_weighting)


def kto_objective(
    reference: Reference, desirable: np.ndarray, beta: float, desirable_weight: float, undesirable_weight: float
) -> Objective:
    """KTO over labelled rows, each an example of its own answer and of another prompt's (``data.mismatched``).

    reference: gives a batch's log-probs as float32 [2 examples]. desirable: bool, the label of each row of the data set.
    """

    def held_against(batch: Batch) -> Tensor:
        logps = reference(batch)  # by all processes, those without a row too
        if not len(batch.example_ids):
            return logps
        labels = paddle.to_tensor(desirable[batch.example_ids].astype("float32"))
        return paddle.concat([logps.reshape([-1, 2]), labels.unsqueeze(1)], axis=1)

    def logps_and_ratios(scores: Scores, held: Tensor | None) -> tuple[Tensor, Tensor]:
        assert held is not None
        logps = response_logps(scores.token_logps, scores.owner, scores.responses).reshape([-1, 2])
        return logps[:, 0], logps - held[:, :2]

    def loss(scores: Scores, held: Tensor | None, context: Tensor | None) -> ObjectiveSums:
        assert held is not None and context is not None
        logps, ratios = logps_and_ratios(scores, held)
        return kto_loss(ratios[:, 0], logps, context[:, 0], held[:, 2], beta, desirable_weight, undesirable_weight)

    def observe(scores: Scores, held: Tensor | None) -> np.ndarray:
        return logps_and_ratios(scores, held)[1][:, 1:].numpy().astype("float64")

    counts: dict[str, Callable[[Batch], int]] = {
        EXAMPLES: lambda batch: len(batch.example_ids),
        DESIRABLE: lambda batch: int(desirable[batch.example_ids].sum()),
        UNDESIRABLE: lambda batch: int((~desirable[batch.example_ids]).sum()),
    }
    return Objective(held_against, loss, counts, WholeStep(observe, lambda seen: kl_estimate(seen[:, 0])))


def weighted_logps(scores: Scores, ld_alpha: float) -> Tensor:
    """Log-probs of a batch's responses, float32 [responses]. ld_alpha: of the tokens by which a pair's longer answer is longer."""
    logps = scores.token_logps
    if ld_alpha != 1.0:
        logps = logps * verbose_weights(scores.owner, scores.responses, ld_alpha)
    return response_logps(logps, scores.owner, scores.responses)


def reward_objective(margins: Reference, center_rewards_coefficient: float) -> Objective:
    """Bradley-Terry per pair; ``margins`` gives those of a batch's pairs, float32 [pairs]."""

    def loss(scores: Scores, batch_margins: Tensor | None, _context: Tensor | None) -> ObjectiveSums:
        assert batch_margins is not None
        return reward_loss(scores.rewards, batch_margins, center_rewards_coefficient)

    return Objective(margins, loss, {PAIRS: lambda batch: len(batch.example_ids)})
