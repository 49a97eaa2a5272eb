"""Losses over single answers, each labelled desirable or not."""

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn.functional import sigmoid as logistic

from paddlealign.objectives.result import ObjectiveSums

EXAMPLES, DESIRABLE, UNDESIRABLE = "examples", "desirable", "undesirable"


def kto_loss(
    ratios: Tensor, logps: Tensor, kl: Tensor, desirable: Tensor, beta: float, desirable_weight: float, undesirable_weight: float
) -> ObjectiveSums:
    """``w_D sigmoid(-beta (u - z))`` of a desirable answer, ``w_U sigmoid(beta (u - z))`` of another, u = log pi(y|x) - log ref(y|x).

    Ethayarajh et al. 2024 (arXiv 2402.01306), equation 7; z is the mean u of the step's rows with another prompt's answers, 0 at least,
    without a gradient (``kl_estimate``).

    ratios, logps: float32 [examples], u and log pi(y|x). kl: float32 [examples], z. desirable: float32 [examples], 1 or 0. Sums over
    examples. Metrics: ``kl``; ``rewards/accuracies``, how often u is on the label's side of z; over desirable answers ``rewards/chosen``,
    beta u, and ``logps/chosen``; over the others ``rewards/rejected`` and ``logps/rejected``; ``rewards/margins`` has a part over either,
    so that the sum of their means is the difference of the two.
    """
    side = desirable.scale(2.0) - 1.0
    weights = desirable.scale(desirable_weight) + (1.0 - desirable).scale(undesirable_weight)
    loss = (weights * logistic(-side * (ratios - kl).scale(beta))).sum()
    with paddle.no_grad():
        rewards, other = ratios.scale(beta), 1.0 - desirable
        right = (side * (ratios - kl) > 0).astype("float32").sum()
        chosen, rejected = (rewards * desirable).sum(), (rewards * other).sum()
        return ObjectiveSums(
            {
                EXAMPLES: {"loss": loss, "kl": kl.sum(), "rewards/accuracies": right},
                DESIRABLE: {"rewards/chosen": chosen, "logps/chosen": (logps * desirable).sum(), "rewards/margins": chosen},
                UNDESIRABLE: {"rewards/rejected": rejected, "logps/rejected": (logps * other).sum(), "rewards/margins": -rejected},
            }
        )


def kl_estimate(ratios: np.ndarray) -> np.ndarray:
    """``z = max(0, mean u)`` over mismatched answers: how far the policy is from the reference on answers that the prompt does not ask for.

    Ethayarajh et al. 2024, section 4.2; no gradient goes through it. ratios: u of every example's mismatched answer, [examples]. Returns
    z for every example alike, float64 [examples, 1].
    """
    return np.full((len(ratios), 1), max(0.0, float(ratios.mean())))
