"""Faults of the source documents' systems that docs/seeds.md says are not here, where no other test shows it."""

import json

import numpy as np
import pytest

from paddlealign.data.example import Example, Response
from paddlealign.data.packing import make_batch
from paddlealign.data.records import read_records
from paddlealign.errors import UserError

END = 7  # pads as well, as with LLaMA's tokenizers


def pair(*tokens: int) -> Example:
    """A prompt of three of these tokens, and two answers of the others."""
    prompt, chosen, rejected = (np.array(part, np.int32) for part in (tokens[:3], tokens[3:6], tokens[6:]))
    return Example(prompt, tuple(Response(ids, np.ones(len(ids), bool)) for ids in (chosen, rejected)))


def test_a_token_that_ends_and_pads_is_a_token_like_any():
    """It hides nothing from attention, and is learned where an answer has it."""
    ended, plain = pair(1, END, 2, 3, 4, END, END, 5, END), pair(1, 2, 2, 3, 4, 5, 6, 5, 6)
    batch, other = (make_batch([example, pair(1, 2, 3, 4, 5, 6, 8)], [[0], [1]], END) for example in (ended, plain))
    assert np.array_equal(batch.visible_until, other.visible_until) and np.array_equal(batch.position_ids, other.position_ids)
    assert np.array_equal(batch.score_at, other.score_at)
    assert batch.target_ids.tolist()[:6] == [3, 4, END, END, 5, END]


@pytest.mark.parametrize("rejected", [{}, {"rejected": None}])
def test_an_answer_that_is_missing_is_no_text(tmp_path, rejected):
    path = tmp_path / "d.jsonl"
    path.write_text(
        json.dumps({"prompt": "q", "chosen": "c", "rejected": "r"}) + "\n" + json.dumps({"prompt": "q", "chosen": "c", **rejected})
    )
    with pytest.raises(UserError, match=r"d\.jsonl:2.*rejected"):
        read_records([path], "preference")
