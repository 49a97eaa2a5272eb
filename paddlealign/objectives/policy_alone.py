"""Losses that need no reference model: they look at the policy's own log-probs.

``log pi(y)`` is that of an answer y of |y| tokens, given its prompt.
Every function takes the pairs and the numbers, and gives the loss of each pair: float32 [pairs].
"""

import paddle
from paddle import Tensor
from paddle.nn.functional import log_sigmoid

from paddlealign.objectives.difference import smoothed
from paddlealign.objectives.pairs import Coefficients, Pairs

# The odds of an answer that is all but certain are infinite; its mean log-prob is kept this far below 0.
_LEAST_DOUBT = 1e-6


def simpo(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``-log sigmoid(beta log pi(y_w) / |y_w| - beta log pi(y_l) / |y_l| - gamma)``.

    Meng et al. 2024 (arXiv 2405.14734), equation 6; label_smoothing as in loss_type sigmoid.
    """
    rewards = (pairs.logps / pairs.lengths).scale(numbers.beta)
    return smoothed(rewards[:, 0] - rewards[:, 1] - numbers.simpo_gamma, numbers.label_smoothing)


def cpo(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``-log sigmoid(beta (log pi(y_w) - log pi(y_l)))``.

    Xu et al. 2024 (arXiv 2401.08417), equation 3, to which it adds sft; label_smoothing as in loss_type sigmoid.
    """
    return smoothed((pairs.logps[:, 0] - pairs.logps[:, 1]).scale(numbers.beta), numbers.label_smoothing)


def orpo(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``-log sigmoid(log odds(y_w) - log odds(y_l))``, odds = p / (1 - p), p = pi^(1 / |y|).

    Hong et al. 2024 (arXiv 2403.07691), equation 7, to which it adds sft; its lambda is pref_loss_ratio.
    """
    logps = (pairs.logps / pairs.lengths).clip(max=-_LEAST_DOUBT)
    odds = logps - log1mexp(logps)
    return -log_sigmoid(odds[:, 0] - odds[:, 1])


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - e^x)`` for x < 0, exact at both ends (Maechler 2012, equation 7). float32, any shape."""
    near = x > -0.6931472
    # Each branch is given an argument at which it is finite, or its gradient would be no number where the other one is taken.
    far = paddle.log1p(-paddle.exp(paddle.where(near, paddle.full_like(x, -1.0), x)))
    return paddle.where(near, paddle.log(-paddle.expm1(paddle.where(near, x, paddle.full_like(x, -0.5)))), far)


def sft(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``-log pi(y_w)``, divided by the step's chosen tokens.

    The mean cross-entropy of supervised fine-tuning.
    """
    return -pairs.whole[:, 0]


def sft_norm(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``-log pi(y_w) / |y_w|``, divided by the step's pairs.

    Pang et al. 2024, "Iterative RPO" (arXiv 2404.19733), equation 1, the term beside DPO's.
    """
    return -(pairs.whole[:, 0] / pairs.lengths[:, 0])
