"""Answers to other prompts, which KTO estimates the KL with."""

from collections import Counter

import numpy as np
import pytest

from paddlealign.data.example import Example, Response
from paddlealign.data.mismatched import with_mismatched
from paddlealign.errors import UserError


def example(prompt: int, answer: list[int]) -> Example:
    return Example(np.array([prompt], np.int32), (Response(np.array(answer, np.int32), np.ones(len(answer), bool)),))


def test_over_pairs_the_other_answers_are_of_both_kinds_and_each_is_used_about_once():
    """Even answers were chosen, odd ones rejected; the rows stand as pairs give them."""
    found = with_mismatched([example(row // 2, [row]) for row in range(200)], max_length=8)
    others = [int(it.responses[1].token_ids[0]) for it in found]
    assert all(other // 2 != row // 2 for row, other in enumerate(others))
    assert 80 <= sum(other % 2 for other in others) <= 120
    assert max(Counter(others).values()) <= 3 and len(set(others)) >= 150
    assert [int(it.responses[0].token_ids[0]) for it in found] == list(range(200))
    again = with_mismatched([example(row // 2, [row]) for row in range(200)], max_length=8)
    assert others == [int(it.responses[1].token_ids[0]) for it in again]


def test_an_answer_is_cut_where_there_is_no_room():
    found = with_mismatched([example(0, [1]), example(1, [2, 3, 4])], max_length=3)
    assert found[0].responses[1].token_ids.tolist() == [2, 3] and found[0].responses[1].scored.tolist() == [True, True]


def test_one_prompt_alone_is_refused():
    with pytest.raises(UserError, match="all rows have the same prompt"):
        with_mismatched([example(0, [1]), example(0, [2])], max_length=4)
