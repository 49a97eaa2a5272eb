"""Losses over the log-ratio of each answer to the reference by itself.

c is that of the chosen, r of the rejected answer: ``log pi(y|x) - log ref(y|x)``.
Every function takes the pairs and the numbers, and gives the loss of each pair: float32 [pairs].
"""

import paddle
from paddle import Tensor
from paddle.nn.functional import log_sigmoid, relu
from paddle.nn.functional import sigmoid as logistic

from paddlealign.objectives.pairs import Coefficients, Pairs


def dpop(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``-log sigmoid(beta (c - r - lambda max(0, -c)))``.

    Pal et al. 2024, "Smaug" (arXiv 2402.13228), where it is called DPO-positive.
    """
    penalty = relu(-pairs.chosen).scale(numbers.dpop_lambda)
    return -log_sigmoid((pairs.chosen - pairs.rejected - penalty).scale(numbers.beta))


def nca_pair(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``-log sigmoid(beta c) - log sigmoid(-beta c) / 2 - log sigmoid(-beta r) / 2``.

    Chen et al. 2024 (arXiv 2402.05369), NCA for pairs.
    """
    rewards = pairs.ratios.scale(numbers.beta)
    return -log_sigmoid(rewards[:, 0]) - log_sigmoid(-rewards).sum(1).scale(0.5)


def sppo_hard(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``(c - 1 / (2 beta))^2 + (r + 1 / (2 beta))^2``.

    Wu et al. 2024 (arXiv 2405.00675), equation 4.7 where a win is certain; beta is its 1 / eta.
    """
    aim = paddle.to_tensor([0.5 / numbers.beta, -0.5 / numbers.beta])
    return paddle.square(pairs.ratios - aim).sum(1)


def apo_zero(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``sigmoid(-beta c) + sigmoid(beta r)``.

    D'Oosterlinck et al. 2024 (arXiv 2408.06266), equation 7: for chosen answers that are better than the model's.
    """
    return logistic(-pairs.chosen.scale(numbers.beta)) + logistic(pairs.rejected.scale(numbers.beta))


def apo_down(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``sigmoid(beta c) + sigmoid(-beta (c - r))``.

    D'Oosterlinck et al. 2024 (arXiv 2408.06266), equation 8: for a model that is better than the chosen answers.
    """
    return logistic(pairs.chosen.scale(numbers.beta)) + logistic((pairs.rejected - pairs.chosen).scale(numbers.beta))
