"""How well a model foresees texts: the log-probs of their scored tokens, summed in float64, and the perplexity that follows."""

import numpy as np


def sum_by_response(token_logps: np.ndarray, owner: np.ndarray, responses: int) -> tuple[np.ndarray, np.ndarray]:
    """The negative log-likelihood of each response, and its scored tokens.

    token_logps: float32 [targets]. owner: int64 [targets], the response of each. Returns ``-sum_t log p(y_t | x, y_<t)`` in nats as float64
    [responses], and int64 [responses].
    """
    nlls = -np.bincount(owner, weights=token_logps.astype(np.float64), minlength=responses)
    return nlls, np.bincount(owner, minlength=responses).astype(np.int64)


def summarise_nll(nlls: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
    """Mean and perplexity over all scored tokens, so that a long row counts for more than a short one.

    nlls: float64 [rows], in nats; tokens: int64 [rows]; of both one row at least. mean: nats a token. perplexity: ``exp(mean)``.
    """
    mean = nlls.sum() / tokens.sum()
    return {"mean": float(mean), "perplexity": float(np.exp(mean))}
