"""The win rate that is left when both answers are equally long.

Dubois et al. 2024 (arXiv 2404.04475), section 3, without the difficulty of single prompts, which takes many models to estimate:
``P(A wins) = sigma(theta + phi tanh((len_A - len_B) / std(len_A - len_B)))``, fitted by greatest likelihood. The length-controlled win rate
is ``sigma(theta)``.
"""

import numpy as np

_STEPS = 100
_LEAST_SPREAD = 1e-6


def length_controlled_rate(outcomes: np.ndarray, differences: np.ndarray) -> tuple[float | None, str]:
    """A's win rate at equal lengths, or None with the reason why the rows do not tell it.

    outcomes: float64 [rows], 1 where A won, 0 where it lost, 0.5 for a tie (half a win and half a loss). differences: float64 [rows], A's
    length less B's, in one unit. The reason goes on from "not determined: ".
    """
    won, lost = differences[outcomes > 0], differences[outcomes < 1]
    if not len(won) or not len(lost):
        return None, f"{'A' if len(won) else 'B'} won every row"
    if differences.min() == differences.max():
        if differences[0] == 0:
            return float(outcomes.mean()), ""
        return None, f"the lengths differ by the same {abs(differences[0]):g} in every row"
    if max(lost) <= min(won) or max(won) <= min(lost):
        # The likelihood then grows with phi without end: length alone foretells every row.
        longer = max(lost) <= min(won)
        return None, f"length alone foretells every row: A wins where its answer is {'longer' if longer else 'shorter'} by enough"
    x = np.tanh(differences / differences.std(ddof=1))
    fitted = fit_logistic(outcomes, x) if np.ptp(x) > _LEAST_SPREAD else None
    if fitted is None:
        # All far to one side, where the tanh is flat: equal lengths are out of sight.
        return None, f"A's answer is {'longer' if x.mean() > 0 else 'shorter'} by too much alike in every row"
    return float(_sigmoid(fitted[0])), ""


def fit_logistic(outcomes: np.ndarray, x: np.ndarray) -> tuple[float, float] | None:
    """The constant and slope of greatest likelihood of ``P(y = 1) = sigma(constant + slope x)``, by Newton's method.

    outcomes: float64 [rows], 0 to 1; x: float64 [rows], not all the same. The likelihood must have a maximum: x of ones and zeros must
    overlap. None where it is not found, since it lies too far out for float64.
    """
    columns = np.stack([np.ones_like(x), x], 1)
    weights = np.zeros(2)
    for _ in range(_STEPS):
        chance = _sigmoid(columns @ weights)
        gradient = columns.T @ (outcomes - chance)
        if np.abs(gradient).max() <= 1e-10:
            return float(weights[0]), float(weights[1])
        try:
            step = np.linalg.solve(columns.T @ (columns * (chance * (1 - chance))[:, None]), gradient)
        except np.linalg.LinAlgError:
            return None
        # Far from the maximum a whole step may lead away from it.
        while _log_likelihood(outcomes, columns @ (weights + step)) < _log_likelihood(outcomes, columns @ weights) - 1e-12 * len(x):
            step = step / 2
        weights = weights + step
    return None


def _log_likelihood(outcomes: np.ndarray, logits: np.ndarray) -> float:
    return float((outcomes * logits - np.logaddexp(0, logits)).sum())


def _sigmoid(logits: np.ndarray | float) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -np.asarray(logits, np.float64)))
