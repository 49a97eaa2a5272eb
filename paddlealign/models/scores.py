"""What is done to the scores of the next token before one is chosen, in NumPy: repetitions, n-grams, tokens that may not come yet.

The meanings are those of HuggingFace transformers. Scores are float [vocab], logits or log-probs; a new array is returned where something
changes.
"""

from collections.abc import Sequence

import numpy as np


def log_probs(logits: np.ndarray) -> np.ndarray:
    """The log-softmax of logits, float32 [rows, vocab]. (Paddle's takes a second a row on a CPU where the vocabulary has 128 k tokens.)"""
    shifted = logits - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def penalise_repetition(scores: np.ndarray, seen: Sequence[int], penalty: float) -> np.ndarray:
    """Divide the scores of the tokens in ``seen`` by the penalty where positive, multiply them where negative (Keskar et al. 2019)."""
    if penalty == 1.0 or not seen:
        return scores
    tokens = np.array(seen)
    scores = scores.copy()
    picked = scores[tokens]
    scores[tokens] = np.where(picked < 0, picked * penalty, picked / penalty)
    return scores


def ban_repeated_ngrams(scores: np.ndarray, seen: Sequence[int], size: int) -> np.ndarray:
    """Give -inf to every token that would end an n-gram of ``size`` tokens which stands in ``seen`` already. size 0: none."""
    if size == 0 or len(seen) < size:
        return scores
    ngrams = np.lib.stride_tricks.sliding_window_view(np.array(seen), size)
    begun = np.array(seen[len(seen) - size + 1 :])
    return ban_tokens(scores, ngrams[(ngrams[:, :-1] == begun).all(axis=1), -1])


def ban_tokens(scores: np.ndarray, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
    """Give -inf to these tokens. Those that the vocabulary does not hold are passed over."""
    banned = np.array(tokens, dtype=np.int64)
    scores = scores.copy()
    scores[banned[banned < len(scores)]] = -np.inf
    return scores


def penalise_chosen(scores: np.ndarray, chosen: Sequence[int], rate: float) -> np.ndarray:
    """Lower a token by ``rate`` for each time that it was chosen by another beam group at this step (Vijayakumar et al. 2016)."""
    scores = scores.copy()
    np.subtract.at(scores, np.array(chosen, dtype=np.int64), rate)
    return scores
