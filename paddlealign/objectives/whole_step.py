"""Losses that look at all pairs of a step at once, in such a form that any split of the step gives the same gradient.

What a pair must know of the others is worked out beforehand, from log-probs without a gradient, as two numbers a pair: its context. c and r
are the log-ratios of the chosen and the rejected answer, ``log pi(y|x) - log ref(y|x)``. Each loss gives float32 [pairs].
"""

import numpy as np
from paddle import Tensor
from paddle.nn.functional import log_sigmoid
from paddle.nn.functional import sigmoid as logistic

from paddlealign.objectives.difference import smoothed
from paddlealign.objectives.pairs import Coefficients, Pairs


def kto_pair(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``(sigmoid(-beta (c - max(0, mean r))) + sigmoid(-beta (max(0, mean c) - r))) / 2``.

    Ethayarajh et al. 2024 (arXiv 2402.01306), equation 7, for pairs as its first version had it: the means over the step's other answers
    estimate the KL. No gradient goes through them.
    """
    assert pairs.context is not None
    chosen, rejected = pairs.chosen - pairs.context[:, 1], pairs.context[:, 0] - pairs.rejected
    return (logistic(-chosen.scale(numbers.beta)) + logistic(-rejected.scale(numbers.beta))).scale(0.5)


def kto_context(policy: np.ndarray, reference: np.ndarray, numbers: Coefficients) -> np.ndarray:
    """For every pair alike: ``max(0, mean c)``, ``max(0, mean r)``. policy, reference: log-probs [pairs, 2]. Returns float64 [pairs, 2]."""
    return np.tile(np.maximum((policy - reference).mean(0), 0.0), (len(policy), 1))


def bco_pair(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``-log sigmoid(beta c - delta) - log sigmoid(-(beta r - delta))``.

    Jung et al. 2024 (arXiv 2404.04656); delta is the mean reward, beta c and beta r, of the step's answers, without a gradient.
    """
    assert pairs.context is not None
    rewards = pairs.ratios.scale(numbers.beta) - pairs.context
    return -log_sigmoid(rewards[:, 0]) - log_sigmoid(-rewards[:, 1])


def bco_context(policy: np.ndarray, reference: np.ndarray, numbers: Coefficients) -> np.ndarray:
    """delta, the mean reward, for every answer alike. policy, reference: log-probs [pairs, 2]. Returns float64 [pairs, 2]."""
    return np.full((len(policy), 2), numbers.beta * (policy - reference).mean())


def aot(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``h(beta (s_(k) - t_(k)))`` over ranks k, s = log pi(y_w) - log pi(y_l), t the same of the reference.

    Melnyk et al. 2024 (arXiv 2406.05882), the paired form; h is sigmoid's cross-entropy. Sorting the reference's t carries no gradient,
    so each pair is held to the t of its own rank.
    """
    assert pairs.context is not None
    own = pairs.logps[:, 0] - pairs.logps[:, 1]
    return smoothed((own - pairs.context[:, 0]).scale(numbers.beta), numbers.label_smoothing)


def aot_context(policy: np.ndarray, reference: np.ndarray, numbers: Coefficients) -> np.ndarray:
    """The reference's difference of a pair's own rank, twice. policy, reference: log-probs [pairs, 2]. Returns float64 [pairs, 2]."""
    return np.repeat(_of_same_rank(policy[:, 0] - policy[:, 1], reference[:, 0] - reference[:, 1])[:, None], 2, 1)


def aot_unpaired(pairs: Pairs, numbers: Coefficients) -> Tensor:
    """``h(beta (c_(k) - r_(k)))`` over ranks k.

    Melnyk et al. 2024 (arXiv 2406.05882), the unpaired form. Both sides of a rank have a gradient and may lie in different micro-batches:
    each is counted with the other one fixed. Those are two terms for one, so half of their value is taken away again.
    """
    assert pairs.context is not None
    left = smoothed((pairs.chosen - pairs.context[:, 0]).scale(numbers.beta), numbers.label_smoothing)
    right = smoothed((pairs.context[:, 1] - pairs.rejected).scale(numbers.beta), numbers.label_smoothing)
    both = left + right
    return both - both.detach().scale(0.5)


def aot_unpaired_context(policy: np.ndarray, reference: np.ndarray, numbers: Coefficients) -> np.ndarray:
    """The r of the chosen answer's rank, and the c of the rejected one's: float64 [pairs, 2]. policy, reference: log-probs [pairs, 2]."""
    chosen, rejected = (policy - reference).T
    return np.stack([_of_same_rank(chosen, rejected), _of_same_rank(rejected, chosen)], 1)


def _of_same_rank(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of ``values`` that one of ``others`` which has the same rank."""
    found = np.empty(len(values))
    found[np.argsort(values, kind="stable")] = np.sort(others)
    return found
