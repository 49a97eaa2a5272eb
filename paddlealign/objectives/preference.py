"""Preference objectives: one loss over pairs, or several with weights, and the metrics beside them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor

from paddlealign.objectives import difference, policy_alone, ratios, whole_step
from paddlealign.objectives.pairs import Coefficients, Pairs, make_pairs
from paddlealign.objectives.result import PAIRS, ObjectiveSums

CHOSEN_TOKENS = "chosen tokens"


def log_ratios(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """DPO's implicit rewards, ``beta (log pi(y|x) - log ref(y|x))`` (Rafailov et al. 2023, equation 5): float32 [pairs, 2]."""
    return pairs.ratios.scale(numbers.beta)


def log_probs(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """Rewards without a reference, ``beta log pi(y|x)``: float32 [pairs, 2]."""
    return pairs.logps.scale(numbers.beta)


def mean_log_probs(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """The same for each token of an answer, ``beta log pi(y|x) / |y|`` (Meng et al. 2024, equation 4): float32 [pairs, 2]."""
    return (pairs.logps / pairs.lengths).scale(numbers.beta)


def plain_mean_log_probs(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``log pi(y|x) / |y|``, for losses that have no beta: float32 [pairs, 2]."""
    return pairs.logps / pairs.lengths


@dataclass(frozen=True)
class PreferenceLoss:
    """A loss over pairs.

    function: the loss of each pair. context: what a pair must know of all pairs of the step (a forward pass more), None for nothing.
    rewards: the answers' rewards that it implies. per: what its sum is divided by. of_chosen: whether it is the cross-entropy of the chosen
    answers alone.
    """

    function: Callable[[Pairs, Coefficients], Tensor]
    context: Callable[[np.ndarray, np.ndarray, Coefficients], np.ndarray] | None = None
    rewards: Callable[[Pairs, Coefficients], Tensor] = log_ratios
    per: str = PAIRS
    of_chosen: bool = False


# What each asks of the keys stands in paddlealign/arguments/losses.py, under the same names.
PREFERENCE_LOSSES: dict[str, PreferenceLoss] = {
    "sigmoid": PreferenceLoss(difference.dpo),
    "sigmoid_norm": PreferenceLoss(difference.sigmoid_norm),
    "robust": PreferenceLoss(difference.robust),
    "hinge": PreferenceLoss(difference.hinge),
    "ipo": PreferenceLoss(difference.ipo),
    "exo_pair": PreferenceLoss(difference.exo_pair),
    "discopop": PreferenceLoss(difference.discopop),
    "dpop": PreferenceLoss(ratios.dpop),
    "nca_pair": PreferenceLoss(ratios.nca_pair),
    "sppo_hard": PreferenceLoss(ratios.sppo_hard),
    "apo_zero": PreferenceLoss(ratios.apo_zero),
    "apo_down": PreferenceLoss(ratios.apo_down),
    "kto_pair": PreferenceLoss(whole_step.kto_pair, whole_step.kto_context),
    "bco_pair": PreferenceLoss(whole_step.bco_pair, whole_step.bco_context),
    "aot": PreferenceLoss(whole_step.aot, whole_step.aot_context),
    "aot_unpaired": PreferenceLoss(whole_step.aot_unpaired, whole_step.aot_unpaired_context),
    "simpo": PreferenceLoss(policy_alone.simpo, rewards=mean_log_probs),
    "cpo": PreferenceLoss(policy_alone.cpo, rewards=log_probs),
    "orpo": PreferenceLoss(policy_alone.orpo, rewards=plain_mean_log_probs),
    "sft": PreferenceLoss(policy_alone.sft, rewards=plain_mean_log_probs, per=CHOSEN_TOKENS, of_chosen=True),
    "sft_norm": PreferenceLoss(policy_alone.sft_norm, rewards=plain_mean_log_probs, of_chosen=True),
}


def preference_loss(
    policy_logps: Tensor,
    whole_logps: Tensor,
    reference_logps: Tensor | None,
    lengths: Tensor,
    context: Tensor | None,
    weights: Mapping[str, float],
    numbers: Coefficients,
    pair_weights: Tensor | None = None,
) -> ObjectiveSums:
    """The weighted sum of some losses, with the rewards that the first of them implies.

    policy_logps, whole_logps, reference_logps, lengths: float32 [2 pairs], chosen and rejected in turn; whole_logps: see ``Pairs``;
    reference_logps None without a reference, lengths in scored tokens. context: of ``step_context``, None where no loss asks for it.
    weights: by the loss's name. pair_weights: float32 [pairs], what each pair counts in losses that compare its answers. Sums over pairs
    and over chosen tokens. Metrics: ``rewards/chosen`` and ``rewards/rejected``, see ``PreferenceLoss.rewards``; ``rewards/margins`` their
    difference; ``rewards/accuracies`` how often it is above zero; ``logps/chosen`` and ``logps/rejected`` of whole answers; ``nll_loss``
    where sft is mixed in.
    """
    pairs = make_pairs(policy_logps, whole_logps, reference_logps, lengths, numbers)
    values: dict[str, dict[str, Tensor]] = {PAIRS: {}}
    column = 0
    for name, weight in weights.items():
        row, seen = PREFERENCE_LOSSES[name], pairs
        if row.context:
            assert context is not None
            seen = pairs.within(context[:, column : column + 2])
            column += 2
        losses = row.function(seen, numbers)
        loss = (losses if pair_weights is None or row.of_chosen else losses * pair_weights).sum()
        here = values.setdefault(row.per, {})
        here["loss"] = here["loss"] + loss.scale(weight) if "loss" in here else loss.scale(weight)
    with paddle.no_grad():
        if CHOSEN_TOKENS in values:
            values[CHOSEN_TOKENS]["nll_loss"] = -pairs.whole[:, 0].sum()
        rewards = PREFERENCE_LOSSES[next(iter(weights))].rewards(pairs, numbers)
        values[PAIRS] |= _metrics(pairs, rewards)
        margins = _margins(pairs, rewards, reference_logps)
    return ObjectiveSums(values, margins)


def _metrics(pairs: Pairs, rewards: Tensor) -> dict[str, Tensor]:
    margin = rewards[:, 0] - rewards[:, 1]
    reward_sums, logp_sums = rewards.sum(0), pairs.whole.sum(0)
    return {
        "rewards/chosen": reward_sums[0],
        "rewards/rejected": reward_sums[1],
        "rewards/margins": margin.sum(),
        "rewards/accuracies": (margin > 0).astype("float32").sum(),
        "logps/chosen": logp_sums[0],
        "logps/rejected": logp_sums[1],
    }


def _margins(pairs: Pairs, rewards: Tensor, reference_logps: Tensor | None) -> dict[str, Tensor]:
    """Of each pair by itself: the rewards' margin, and those of the policy's and the reference's log-probs of whole answers."""
    sides = {"rewards": rewards, "logps": pairs.whole}
    if reference_logps is not None:
        sides["reference_logps"] = reference_logps.reshape([-1, 2])
    return {f"{name}/margins": both[:, 0] - both[:, 1] for name, both in sides.items()}


def step_context(policy_logps: np.ndarray, reference_logps: np.ndarray, weights: Mapping[str, float], numbers: Coefficients) -> np.ndarray:
    """What each pair must know of all the pairs of a step, two columns for each loss that asks.

    policy_logps, reference_logps: [pairs, 2] of the whole step. weights: see ``preference_loss``. Returns float64 [pairs, columns].
    """
    asked = [PREFERENCE_LOSSES[name].context for name in weights]
    return np.concatenate([context(policy_logps, reference_logps, numbers) for context in asked if context], 1)
