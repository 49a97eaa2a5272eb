"""From logits to the next token of each row, in NumPy: penalties, then temperature, top-k and top-p, then a draw.

The order and the meanings are those of HuggingFace transformers. A row's draws come from its own generator, seeded by (seed, row), so
they do not depend on which rows stand beside it.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GenerationSettings:
    """How texts are generated.

    max_new_tokens, min_new_tokens: tokens after the prompt; before the minimum no stop id is taken. stop_ids: ids that end a row.
    do_sample: draw; False takes the likeliest token, and temperature, top_k and top_p have no effect. temperature: above 0. top_k: draw
    among the k likeliest, 0 for all. top_p: draw among the likeliest that together hold this probability. repetition_penalty: logits of
    tokens already seen, the prompt's included, are divided by it where positive and multiplied where negative (Keskar et al. 2019).
    """

    max_new_tokens: int = 128
    min_new_tokens: int = 0
    stop_ids: tuple[int, ...] = ()
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    @property
    def is_plain_greedy(self) -> bool:
        """Whether the likeliest token is always the next one, so that logits need not leave the device."""
        return not self.do_sample and self.repetition_penalty == 1.0 and self.min_new_tokens == 0


def row_generator(seed: int, row: int) -> np.random.Generator:
    """The random numbers of one row."""
    return np.random.default_rng([seed, row])


def choose_token(logits: np.ndarray, seen: list[int], new_tokens: int, settings: GenerationSettings, random: np.random.Generator) -> int:
    """Choose a row's next token.

    logits: float32 [vocab]. seen: the prompt's tokens and those generated; new_tokens: how many were generated. random: the row's own
    generator; each drawn token takes one number from it.
    """
    scores = penalise(logits.astype(np.float64), seen, settings.repetition_penalty)
    if new_tokens < settings.min_new_tokens and settings.stop_ids:
        scores[list(settings.stop_ids)] = -np.inf
    if not settings.do_sample:
        return int(scores.argmax())
    scores = keep_top_p(keep_top_k(scores / settings.temperature, settings.top_k), settings.top_p)
    cumulative = np.exp(scores - scores.max()).cumsum()
    # Rounding may not lift the draw above the last token that has a probability.
    drawn = int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))
    return min(drawn, int(np.flatnonzero(np.isfinite(scores))[-1]))


def penalise(scores: np.ndarray, seen: list[int], penalty: float) -> np.ndarray:
    """Make the tokens in ``seen`` less likely. scores: float [vocab]; a new array is returned where something changes."""
    if penalty == 1.0 or not seen:
        return scores
    scores = scores.copy()
    picked = scores[seen]
    scores[seen] = np.where(picked < 0, picked * penalty, picked / penalty)
    return scores


def keep_top_k(scores: np.ndarray, top_k: int) -> np.ndarray:
    """Set all but the k highest scores to -inf; those equal to the k-th stay. scores: float [vocab]; 0 or k >= vocab keeps all."""
    if not 0 < top_k < len(scores):
        return scores
    threshold = np.partition(scores, -top_k)[-top_k]
    return np.where(scores < threshold, -np.inf, scores)


def keep_top_p(scores: np.ndarray, top_p: float) -> np.ndarray:
    """Keep the smallest set of likeliest tokens whose probability is at least ``top_p``, one at least (Holtzman et al. 2020).

    scores: float [vocab]; the others become -inf.
    """
    if top_p >= 1.0:
        return scores
    weights = np.exp(scores - scores.max())
    total = weights.sum()
    # Tokens below this share cannot be kept even all together, and leaving them out saves most of the sorting.
    likely = np.flatnonzero(weights > (1.0 - top_p) / len(scores) * total)
    ascending = likely[np.argsort(scores[likely], kind="stable")]
    left_out = total - weights[ascending].sum()
    below = (left_out + weights[ascending].cumsum()) / total
    below[-1] = 1.0
    kept = ascending[below > 1.0 - top_p]
    result = np.full_like(scores, -np.inf)
    result[kept] = scores[kept]
    return result
