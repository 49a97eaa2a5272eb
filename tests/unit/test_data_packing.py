"""The arrays of a small batch, written out."""

import numpy as np
import pytest

from paddlealign.data import packing
from paddlealign.data.example import Example, Response
from paddlealign.data.packing import lay, make_batch, pack_rows, share_out


def response(*ids: int, scored: str | None = None) -> Response:
    """``scored`` is a string of 0 and 1; None: all."""
    mask = np.array([letter == "1" for letter in scored]) if scored else np.ones(len(ids), bool)
    return Response(np.array(ids, np.int32), mask)


def example(prompt: tuple[int, ...], *responses: Response) -> Example:
    return Example(np.array(prompt, np.int32), responses)


PAIR = example((11, 12), response(21, 22, 2), response(31, 2))
TALK = example((13,), response(41, 2, 14, 42, scored="1101"))
ALONE = example((), response(51, 52))


def test_a_batch_written_out():
    """Two rows: [PAIR] and [TALK, ALONE], padded to 8. Row 0, columns:

        0   1   2   3   4   5   6   7
        11  12  21  22  2   31  2   pad     the prompt 11 12, chosen 21 22 2, rejected 31 2

    The prompt is visible until 7 (the example's end), chosen until 5, rejected until 7, the padding to itself.
    21 and 31 are both predicted from 12 in column 1. Row 1 is 13 41 2 14 42, then 51 52 without a prompt: 51 is not scored.
    """
    batch = make_batch([ALONE, PAIR, TALK], [[1], [2, 0]], pad_id=9)
    assert batch.input_ids.tolist() == [[11, 12, 21, 22, 2, 31, 2, 9], [13, 41, 2, 14, 42, 51, 52, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3, 0], [0, 1, 2, 3, 4, 0, 1, 0]]
    assert batch.visible_until[:, 0, :, 0].tolist() == [[7, 7, 5, 5, 5, 7, 7, 8], [5, 5, 5, 5, 5, 7, 7, 8]]
    assert batch.score_at.tolist() == [1, 2, 3, 1, 5, 8 + 0, 8 + 1, 8 + 3, 8 + 5]
    assert batch.target_ids.tolist() == [21, 22, 2, 31, 2, 41, 2, 42, 52]
    assert batch.target_owner.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3]
    assert batch.last_at.tolist() == [4, 6, 8 + 4, 8 + 6]
    assert batch.example_ids.tolist() == [1, 2, 0]
    assert (batch.response_count, batch.token_count) == (4, 14)


def test_dtypes_and_shapes():
    batch = make_batch([PAIR, TALK], [[0, 1]], pad_id=0)
    assert batch.visible_until.shape == (1, 1, 16, 1)
    names = ("input_ids", "position_ids", "score_at", "target_ids", "target_owner", "last_at", "example_ids")
    assert {getattr(batch, name).dtype for name in names} == {np.dtype(np.int64)}
    assert batch.visible_until.dtype == np.int32


def test_the_length_of_rows():
    assert make_batch([PAIR], [[0]], pad_id=0, length=11).input_ids.shape == (1, 11)
    assert make_batch([PAIR], [[0, 0]], pad_id=0).input_ids.shape == (1, 16)
    with pytest.raises(ValueError, match="a row holds 7 tokens and should be 6 long"):
        make_batch([PAIR], [[0]], pad_id=0, length=6)


def test_an_empty_batch():
    """What a rank gets that has no example in the last step."""
    batch = make_batch([PAIR], [], pad_id=0)
    assert (batch.input_ids.shape, batch.score_at.shape, batch.response_count, batch.token_count) == ((0, 8), (0,), 0, 0)


def test_next_fit_keeps_the_order_and_best_fit_fills_gaps():
    lengths = [5, 6, 3, 2, 4]
    assert pack_rows(lengths, 10, best_fit=False) == [[0], [1, 2], [3, 4]]
    assert pack_rows(lengths, 10, best_fit=True) == [[1, 4], [0, 2, 3]]
    assert pack_rows([], 10, best_fit=True) == []
    with pytest.raises(ValueError, match="11 tokens does not fit into a row of 10"):
        pack_rows([3, 11], 10, best_fit=False)


def test_best_fit_of_many_is_done_in_windows_and_next_fit_is_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packing, "WINDOW", 3)
    lengths = [5, 6, 3, 2, 4, 1, 9]
    assert pack_rows(lengths, 10, best_fit=True) == [[1, 2], [0], [4, 3, 5], [6]]
    assert pack_rows(lengths * 5, 10, best_fit=False) == [
        [first + index for index in row] for first in range(0, 35, 7) for row in ([0], [1, 2], [3, 4, 5], [6])
    ]


def test_batches_get_their_number_of_examples_and_about_as_many_tokens():
    assert share_out(np.array([9, 1, 8, 2, 7, 3]), [2, 2, 2]) == [[0, 1], [2, 3], [4, 5]]
    assert share_out(np.array([9, 8, 7]), [1, 0, 2]) == [[0], [], [1, 2]]
    assert share_out(np.array([5, 5]), [1, 1]) == [[0], [1]]


def test_a_micro_batch_is_one_row_whatever_is_counted():
    batch = lay([PAIR, TALK, ALONE], [(2, 0), (1,)], pad_id=9)
    assert batch.input_ids.tolist() == [[51, 52, 11, 12, 21, 22, 2, 31, 2, 13, 41, 2, 14, 42, 9, 9]]
    assert batch.example_ids.tolist() == [2, 0, 1]
    idle = lay([PAIR], [], pad_id=9)
    assert (idle.input_ids.tolist(), len(idle.example_ids), idle.response_count) == ([[9] * 8], 0, 1)
