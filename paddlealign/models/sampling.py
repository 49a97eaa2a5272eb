"""From logits to the next token of each row, in NumPy: penalties, then temperature, top-k and top-p, then a draw.

The order and the meanings are those of HuggingFace transformers. A row's draws come from its own generator, seeded by (seed, row), so
they do not depend on which rows stand beside it.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GenerationSettings:
    """How texts are generated.

    max_new_tokens: tokens after the prompt. stop_ids: ids that end a row. do_sample: draw; False takes the likeliest token, and
    temperature, top_k and top_p have no effect. temperature: above 0. top_k: draw among the k likeliest, 0 for all. top_p: draw among
    the likeliest that together hold this probability. repetition_penalty: logits of tokens already seen, the prompt's included, are
    divided by it where positive and multiplied where negative (Keskar et al. 2019).
    """

    max_new_tokens: int = 128
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
        return not self.do_sample and self.repetition_penalty == 1.0


def row_generator(seed: int, row: int) -> np.random.Generator:
    """The random numbers of one row."""
    return np.random.default_rng([seed, row])


def choose_token(logits: np.ndarray, seen: list[int], settings: GenerationSettings, random: np.random.Generator) -> int:
    """Choose a row's next token.

    logits: float32 [vocab]. seen: the prompt's tokens and those generated. random: the row's own generator; each drawn token takes one
    number from it.
    """
    scores = penalise(logits.astype(np.float64), seen, settings.repetition_penalty)
    if not settings.do_sample:
        return int(scores.argmax())
    scores = scores / settings.temperature
    tokens = top_k_tokens(scores, settings.top_k)
    if len(tokens) < len(scores):
        scores = scores[tokens]
    likeliest = top_p_tokens(scores, settings.top_p)
    if len(likeliest) < len(scores):
        tokens, scores = tokens[likeliest], scores[likeliest]
    cumulative = np.exp(scores - scores.max()).cumsum()
    drawn = int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))
    # Rounding may not lift the draw above the last token.
    return int(tokens[min(drawn, len(tokens) - 1)])


def penalise(scores: np.ndarray, seen: list[int], penalty: float) -> np.ndarray:
    """Make the tokens in ``seen`` less likely. scores: float [vocab]; a new array is returned where something changes."""
    if penalty == 1.0 or not seen:
        return scores
    scores = scores.copy()
    picked = scores[seen]
    scores[seen] = np.where(picked < 0, picked * penalty, picked / penalty)
    return scores


def top_k_tokens(scores: np.ndarray, top_k: int) -> np.ndarray:
    """The tokens with the k highest scores, and those equal to the k-th: int64 [kept], ascending. 0 or k >= vocab keeps all.

    scores: float [vocab].
    """
    if not 0 < top_k < len(scores):
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(scores, -top_k)[-top_k])


def top_p_tokens(scores: np.ndarray, top_p: float) -> np.ndarray:
    """The smallest set of likeliest tokens whose probability is at least ``top_p``, one at least (Holtzman et al. 2020).

    scores: float64 [vocab]. Returns int64 [kept], ascending.
    """
    if top_p >= 1.0:
        return np.arange(len(scores))
    relative = scores - scores.max()
    # The total in float32 is ten times as fast, and right to a millionth; it decides nothing but where the set ends.
    total = float(np.exp(relative.astype(np.float32)).sum(dtype=np.float64))
    # Few tokens hold most of the probability, so few are sorted. Those below the last share cannot be kept even all together.
    for share in (2.0**-10, 2.0**-12, 2.0**-14, 2.0**-16, 2.0**-18, 0.99 * (1.0 - top_p) / len(scores)):
        likely = np.flatnonzero(relative > np.log(share * total))
        weights = np.exp(relative[likely])
        if weights.sum() > top_p * total:
            break
    ascending = np.argsort(relative[likely], kind="stable")
    below = (total - weights.sum() + weights[ascending].cumsum()) / total
    below[-1] = 1.0
    return np.sort(likely[ascending[below > 1.0 - top_p]])
