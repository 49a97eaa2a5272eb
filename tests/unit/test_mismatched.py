"""Answers to other prompts, which KTO estimates the KL with."""

from collections import Counter

import numpy as np
import pytest

from paddlealign.data.example import Example, Response
from paddlealign.data.examples import Examples
from paddlealign.data.mismatched import prompt_digest, with_mismatched
from paddlealign.errors import UserError


def mismatched(examples: list[Example], max_length: int) -> Examples:
    prompts = np.array([prompt_digest(it.prompt_ids) for it in examples], np.uint64)
    return with_mismatched(Examples.of(examples), prompts, max_length)


def example(prompt: int, answer: list[int]) -> Example:
    return Example(np.array([prompt], np.int32), (Response(np.array(answer, np.int32), np.ones(len(answer), bool)),))


def test_over_pairs_the_other_answers_are_of_both_kinds_and_each_is_used_about_once():
    """Even answers were chosen, odd ones rejected; the rows stand as pairs give them."""
    found = mismatched([example(row // 2, [row]) for row in range(200)], max_length=8)
    others = [int(it.responses[1].token_ids[0]) for it in found]
    assert all(other // 2 != row // 2 for row, other in enumerate(others))
    assert 80 <= sum(other % 2 for other in others) <= 120
    assert max(Counter(others).values()) <= 3 and len(set(others)) >= 150
    assert [int(it.responses[0].token_ids[0]) for it in found] == list(range(200))
    again = mismatched([example(row // 2, [row]) for row in range(200)], max_length=8)
    assert others == [int(it.responses[1].token_ids[0]) for it in again]


def test_an_answer_is_cut_where_there_is_no_room():
    found = mismatched([example(0, [1]), example(1, [2, 3, 4])], max_length=3)
    assert found[0].responses[1].token_ids.tolist() == [2, 3] and found[0].responses[1].scored.tolist() == [True, True]


def test_one_prompt_alone_is_refused():
    with pytest.raises(UserError, match="all rows have the same prompt"):
        mismatched([example(0, [1]), example(0, [2])], max_length=4)


def test_the_other_answer_is_that_of_the_nearest_row_before_in_the_shuffled_order():
    """Runs of equal prompts, also over the end of the order, against the rule word by word."""
    for seed in range(40):
        draws = np.random.default_rng(seed)
        examples = [example(int(prompt), [100 + row]) for row, prompt in enumerate(draws.integers(0, 2 + seed % 4, draws.integers(3, 14)))]
        if len({int(it.prompt_ids[0]) for it in examples}) == 1:
            continue
        order, found = np.random.default_rng(0).permutation(len(examples)), mismatched(examples, 9)
        for place, index in enumerate(order):
            before = (examples[order[place - back]] for back in range(1, len(examples)))
            expected = next(it for it in before if not np.array_equal(it.prompt_ids, examples[index].prompt_ids))
            assert found[int(index)].responses[1].token_ids.tolist() == expected.responses[0].token_ids.tolist()
