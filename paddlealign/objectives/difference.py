"""Losses over the difference d of the two answers' scores against the reference.

Under the reverse KL d is ``log pi(y_w)/ref(y_w) - log pi(y_l)/ref(y_l)``.
Every function takes the pairs and the numbers, and gives the loss of each pair: float32 [pairs].
"""

import paddle
from paddle import Tensor
from paddle.nn.functional import log_sigmoid, relu

from paddlealign.objectives.pairs import Coefficients, Pairs


def smoothed(margin: Tensor, label_smoothing: float) -> Tensor:
    """``-(1 - e) log sigmoid(m) - e log sigmoid(-m)``: the cross-entropy of a label that is wrong with probability e. float32 [pairs]."""
    agreed = -log_sigmoid(margin)
    if label_smoothing == 0.0:
        return agreed
    return agreed.scale(1.0 - label_smoothing) - log_sigmoid(-margin).scale(label_smoothing)


def dpo(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``-(1 - e) log sigmoid(beta d) - e log sigmoid(-beta d)``.

    Rafailov et al. 2023 (arXiv 2305.18290), equation 7, for e = 0; with e > 0 conservative DPO: Mitchell 2023, "A note on DPO with noisy
    preferences & relationship to IPO", equation 3.
    """
    return smoothed(pairs.difference.scale(numbers.beta), numbers.label_smoothing)


def sigmoid_norm(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """As loss_type sigmoid, with each score divided by its answer's tokens.

    Lambert et al. 2024, "Tulu 3" (arXiv 2411.15124), where it is called length-normalised DPO.
    """
    return smoothed(pairs.difference_per_token.scale(numbers.beta), numbers.label_smoothing)


def robust(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``(-(1 - e) log sigmoid(beta d) + e log sigmoid(-beta d)) / (1 - 2 e)``.

    Chowdhury et al. 2024 (arXiv 2403.00409): over labels that are flipped with probability e it is in the mean DPO's loss of the true ones.
    """
    margin, e = pairs.difference.scale(numbers.beta), numbers.label_smoothing
    return (log_sigmoid(-margin).scale(e) - log_sigmoid(margin).scale(1.0 - e)).scale(1.0 / (1.0 - 2.0 * e))


def hinge(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``max(0, 1 - beta d)``.

    Zhao et al. 2023, "SLiC-HF" (arXiv 2305.10425), equation 1, in the form of Liu et al. 2023 (arXiv 2309.06657).
    """
    return relu(1.0 - pairs.difference.scale(numbers.beta))


def ipo(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``(d - 1 / (2 beta))^2``.

    Azar et al. 2023 (arXiv 2310.12036), equation 17, where beta is called tau. ipo_average token divides each score by its answer's tokens,
    as TRL and PaddleNLP do; sum is the equation as printed.
    """
    difference = pairs.difference_per_token if numbers.ipo_average == "token" else pairs.difference
    return paddle.square(difference - 0.5 / numbers.beta)


def exo_pair(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``q log(q / (1 - e)) + (1 - q) log((1 - q) / e)``, q = sigmoid(beta d).

    Ji et al. 2024 (arXiv 2402.00856), equation 16.
    """
    margin, labels = pairs.difference.scale(numbers.beta), paddle.to_tensor([1.0 - numbers.label_smoothing, numbers.label_smoothing])
    logs = paddle.stack([log_sigmoid(margin), log_sigmoid(-margin)], axis=1)
    return (logs.exp() * (logs - labels.log())).sum(1)


def discopop(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``(1 - g) (-log sigmoid(m)) + g e^-m``, m = beta d, g = sigmoid(m / tau).

    Lu et al. 2024 (arXiv 2406.08414), equation 5.
    """
    margin = pairs.difference.scale(numbers.beta)
    sharp = margin.scale(1.0 / numbers.discopop_tau)
    # g e^-m in one exponent: where m is far below 0 the one factor overflows and the other vanishes.
    return paddle.exp(log_sigmoid(sharp) - margin) - paddle.exp(log_sigmoid(-sharp)) * log_sigmoid(margin)
