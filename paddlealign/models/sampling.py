"""From logits to the next token of each row, in NumPy: what changes the scores, then temperature, top-k and top-p, then a draw.

The order and the meanings are those of HuggingFace transformers. A row's draws come from its own generator, seeded by (seed, row), so
they do not depend on which rows stand beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from paddlealign.models.scores import ban_repeated_ngrams, ban_tokens, penalise_repetition


@dataclass(frozen=True)
class GenerationSettings:
    """How texts are generated: greedily, by drawing (do_sample), by beams (num_beams above 1) or contrastively (penalty_alpha above 0).

    max_new_tokens: tokens after the prompt. min_new_tokens: before them no stop id is chosen. stop_ids: ids that end a text.
    holds_stop: given a text's new tokens, whether they hold a stop string; it is asked after each token. num_return_sequences: answers
    to each prompt, drawn ones or the best beams.
    repetition_penalty: logits of tokens already seen, the prompt's included, are divided by it where positive and multiplied where
    negative (Keskar et al. 2019). no_repeat_ngram_size: no run of so many tokens comes twice, the prompt's included; 0 is off.
    Drawing: temperature above 0; top_k: among the k likeliest, 0 for all; top_p: among the likeliest that together hold this probability.
    Beams: the width num_beams, in num_beam_groups groups that take turns, where a token chosen by an earlier group is lowered by
    diversity_rate (Vijayakumar et al. 2016). A beam's score is the sum of its log-probs divided by length^length_penalty, the stop id
    counted. early_stopping: end when num_beams answers are found, not when no better one is to be expected.
    Contrastive search (Su et al. 2022): of the top_k likeliest the one with the best (1 - penalty_alpha) * probability - penalty_alpha *
    greatest cosine between its hidden state and those before it.
    """

    max_new_tokens: int = 128
    min_new_tokens: int = 0
    stop_ids: tuple[int, ...] = ()
    holds_stop: Callable[[Sequence[int]], bool] | None = None
    num_return_sequences: int = 1
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    num_beams: int = 1
    num_beam_groups: int = 1
    diversity_rate: float = 0.0
    length_penalty: float = 1.0
    early_stopping: bool = False
    penalty_alpha: float = 0.0

    @property
    def changes_scores(self) -> bool:
        """Whether ``process_scores`` may do something."""
        return self.repetition_penalty != 1.0 or self.no_repeat_ngram_size > 0 or self.min_new_tokens > 0

    def ends(self, new_tokens: Sequence[int]) -> bool:
        """Whether a text ends with its last token, by a stop id or a stop string."""
        return new_tokens[-1] in self.stop_ids or (self.holds_stop is not None and self.holds_stop(new_tokens))


def process_scores(scores: np.ndarray, prompt: Sequence[int], new_tokens: Sequence[int], settings: GenerationSettings) -> np.ndarray:
    """The scores, float [vocab], of the token after a prompt and some new tokens: repetitions lowered, what may not come at -inf."""
    if not settings.changes_scores:
        return scores
    seen = [*prompt, *new_tokens]
    scores = penalise_repetition(scores, seen, settings.repetition_penalty)
    scores = ban_repeated_ngrams(scores, seen, settings.no_repeat_ngram_size)
    return ban_tokens(scores, settings.stop_ids) if len(new_tokens) < settings.min_new_tokens else scores


def row_generator(seed: int, row: int, sequence: int = 0) -> np.random.Generator:
    """The random numbers of one row's answer; ``sequence`` counts its answers."""
    return np.random.default_rng([seed, row, sequence])


def choose_token(scores: np.ndarray, settings: GenerationSettings, random: np.random.Generator) -> int:
    """Choose a text's next token.

    scores: float [vocab], see ``process_scores``. random: the text's own generator; each drawn token takes one number from it.
    """
    if not settings.do_sample:
        return int(scores.argmax())
    # The temperature changes no order, and float64 keeps apart what float32 does: the k likeliest are found before either.
    tokens = top_k_tokens(scores, settings.top_k)
    if len(tokens) < len(scores):
        scores = scores[tokens]
    scores = scores.astype(np.float64) / settings.temperature
    likeliest = top_p_tokens(scores, settings.top_p)
    if len(likeliest) < len(scores):
        tokens, scores = tokens[likeliest], scores[likeliest]
    cumulative = np.exp(scores - scores.max()).cumsum()
    drawn = int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))
    # Rounding may not lift the draw above the last token that can come.
    return int(tokens[drawn if drawn < len(tokens) else np.flatnonzero(scores > -np.inf)[-1]])


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
