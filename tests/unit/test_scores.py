"""What is done to scores before a token is chosen."""

import numpy as np
import pytest

from paddlealign.models.sampling import GenerationSettings, process_scores
from paddlealign.models.scores import ban_repeated_ngrams, ban_tokens, penalise_chosen, penalise_repetition

INF = float("inf")


def test_penalise_repetition_by_hand() -> None:
    scores = np.array([2.0, -2.0, 1.0])
    assert penalise_repetition(scores, [0, 1, 1], 2.0).tolist() == [1.0, -4.0, 1.0]
    assert scores.tolist() == [2.0, -2.0, 1.0]
    assert penalise_repetition(scores, [], 2.0) is scores and penalise_repetition(scores, [0], 1.0) is scores


@pytest.mark.parametrize("size", (1, 2, 3, 4))
def test_no_ngram_comes_twice(size: int) -> None:
    random = np.random.default_rng(1)
    for _ in range(200):
        seen = random.integers(0, 4, random.integers(0, 14)).tolist()
        banned = np.flatnonzero(ban_repeated_ngrams(np.zeros(4), seen, size) == -INF).tolist()
        ngrams = {tuple(seen[place : place + size]) for place in range(len(seen) - size + 1)}
        expected = [token for token in range(4) if len(seen) + 1 >= size and tuple([*seen, token][-size:]) in ngrams]
        assert banned == expected, seen


def test_bans_and_diversity_by_hand() -> None:
    scores = np.array([1.0, 2.0, 3.0], dtype="float32")
    assert ban_tokens(scores, (1, 7)).tolist() == [1.0, -INF, 3.0]  # 7 is no token
    assert penalise_chosen(scores, [2, 0, 2], 0.5).tolist() == [0.5, 2.0, 2.0]
    assert ban_repeated_ngrams(scores, [0, 0], 0) is scores
    assert scores.tolist() == [1.0, 2.0, 3.0] and penalise_chosen(scores, [1], 0.5).dtype == np.float32


def test_all_in_their_order() -> None:
    settings = GenerationSettings(stop_ids=(3,), min_new_tokens=2, repetition_penalty=2.0, no_repeat_ngram_size=2)
    scores = np.array([1.0, 1.0, 1.0, 1.0])
    assert process_scores(scores, [0, 1], [0], settings).tolist() == [0.5, -INF, 1.0, -INF]  # "0 1" stood there
    assert process_scores(scores, [0, 1], [2, 2], settings).tolist() == [0.5, 0.5, -INF, 1.0]  # "2 2" stands there; it may end
    assert process_scores(scores, [0], [1], GenerationSettings(stop_ids=(3,))) is scores
