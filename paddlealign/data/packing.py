"""Examples to packed rows: which examples share a row, and the arrays of a batch."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import replace
from heapq import heappop, heapreplace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from paddlealign.arguments.degrees import ROW_MULTIPLE
from paddlealign.data.example import Batch, Example
from paddlealign.data.examples import Examples

# Examples that are packed at a time. More of them fit no better (0.02 % fewer rows for 1,000,000 pairs than for 65,536 at a time).
WINDOW = 1 << 20
_NONE, _ZERO = np.zeros(0, np.int64), np.zeros(1, np.int64)


class Packed(NamedTuple):
    """Examples in rows, as two arrays: row r holds ``order[starts[r] : starts[r + 1]]``.

    order: int64 [examples], indices. starts: int64 [rows + 1].
    """

    order: np.ndarray
    starts: np.ndarray


def pack(lengths: np.ndarray, capacity: int, best_fit: bool) -> Packed:
    """Put examples of the given lengths, int64, into rows of at most ``capacity`` tokens.

    best_fit: longest first, each into the fullest row that still holds it. Otherwise in order, a new row when the last one is
    full (next fit). Of more than WINDOW examples so many at a time are best fitted, which bounds the memory and costs one row that is not
    full for each. Raises ValueError if one example is longer than a row.
    """
    longest = int(lengths.max(initial=0))
    if longest > capacity:
        raise ValueError(f"an example of {longest} tokens does not fit into a row of {capacity}")
    if not best_fit:
        return Packed(np.arange(len(lengths)), _next_fit(lengths, capacity))
    windows = range(0, len(lengths), WINDOW)
    parts = [_best_fit(lengths[first : first + WINDOW], capacity) for first in windows]
    order = [first + part.order for first, part in zip(windows, parts, strict=True)]
    ends = [first + part.starts[1:] for first, part in zip(windows, parts, strict=True)]
    return Packed(np.concatenate([_NONE, *order]), np.concatenate([_ZERO, *ends]))


def pack_rows(lengths: Sequence[int] | np.ndarray, capacity: int, best_fit: bool) -> list[list[int]]:
    """The rows of ``pack`` as lists of indices into ``lengths``."""
    packed = pack(np.asarray(lengths, np.int64), capacity, best_fit)
    order = packed.order.tolist()
    return [order[start:end] for start, end in pairwise(packed.starts.tolist())]


def _next_fit(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """Where each row starts, and the last one ends."""
    starts, window = [0], max(WINDOW, capacity + 1)  # more examples than a row can hold: each window ends a row at least
    while starts[-1] < len(sizes):
        first, at = starts[-1], 0
        before = np.concatenate([_ZERO, np.cumsum(sizes[first : first + window])])
        # Where a row that started at each example would end. The rows are a chain of these.
        ends = (np.searchsorted(before, before[:-1] + capacity, side="right") - 1).tolist()
        is_last = first + len(ends) == len(sizes)
        while at < len(ends) and (is_last or ends[at] < len(ends)):
            at = ends[at]
            starts.append(first + at)
    return np.array(starts, np.int64)


def _best_fit(sizes: np.ndarray, capacity: int) -> Packed:
    """Examples of one length are placed at once: the fullest row that holds one takes as many as it holds, then the next fullest."""
    descending = np.argsort(-sizes, kind="stable")
    values, counts = np.unique(-sizes, return_counts=True)
    row_of: list[int] = []  # of the examples in descending order
    rows_by_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # the different rooms that rows have left, ascending
    made = 0
    for size, count in zip((-values).tolist(), counts.tolist(), strict=True):
        left = count
        while left:
            place = bisect_left(rooms, size)
            room = rooms[place] if place < len(rooms) else capacity
            each = room // size
            needed = -(-left // each)
            if place == len(rooms):
                rows = list(range(made, made + needed))
                made += needed
            else:
                waiting = rows_by_room[room]
                rows = waiting[: -needed - 1 : -1]  # the one that came to this room last comes first
                del waiting[-len(rows) :]
                if not waiting:
                    del rows_by_room[room], rooms[place]
            taken = min(left, each * len(rows))
            row_of += rows if each == 1 else [row for row in rows for _ in range(each)][:taken]
            left -= taken
            of_last = taken - each * (len(rows) - 1)
            for some, filled in ((rows[:-1], each), (rows[-1:], of_last)):
                if some:
                    if room - filled * size not in rows_by_room:
                        rows_by_room[room - filled * size] = []
                        insort(rooms, room - filled * size)
                    rows_by_room[room - filled * size] += some
    rows_in_order = np.array(row_of, np.int64)
    by_row = np.argsort(rows_in_order, kind="stable")
    return Packed(descending[by_row], np.concatenate([_ZERO, np.cumsum(np.bincount(rows_in_order, minlength=made))]))


def share_out(lengths: np.ndarray, counts: Sequence[int]) -> list[list[int]]:
    """Share examples out into so many batches of so many examples, with about as many tokens in each.

    lengths: int64 [examples]. counts: of each batch; together all examples. Longest first, each to the batch that has least and still takes
    one, the earlier of several. Returns indices into ``lengths``.
    """
    batches: list[list[int]] = [[] for _ in counts]
    heap = [(0, number) for number, count in enumerate(counts) if count]
    sizes = lengths.tolist()
    for index in np.argsort(-lengths, kind="stable").tolist():
        tokens, number = heap[0]
        batches[number].append(index)
        if len(batches[number]) == counts[number]:
            heappop(heap)
        else:
            heapreplace(heap, (tokens + sizes[index], number))
    return batches


def row_length(tokens: int) -> int:
    """Positions of a row that holds so many tokens: a multiple of ROW_MULTIPLE, one at least."""
    return max(-(-tokens // ROW_MULTIPLE) * ROW_MULTIPLE, ROW_MULTIPLE)


def make_batch(
    examples: Sequence[Example],
    rows: Sequence[Sequence[int]],
    pad_id: int,
    length: int | None = None,
) -> Batch:
    """Lay examples into the arrays of a batch.

    examples: the whole data set. rows: for each row the indices of its examples, which become ``example_ids`` in this order.
    length: of the rows; None: the longest row, rounded up to a multiple of 8.
    Raises ValueError if a row does not fit.
    """
    ids = np.array([index for row in rows for index in row], np.int64)
    needed = max((sum(examples[index].length for index in row) for row in rows), default=0)
    width = row_length(needed) if length is None else length
    if needed > width:
        raise ValueError(f"a row holds {needed} tokens and should be {width} long")
    input_ids = np.full((len(rows), width), pad_id, np.int64)
    position_ids = np.zeros((len(rows), width), np.int64)
    visible_until = np.tile(np.arange(1, width + 1, dtype=np.int32), (len(rows), 1))
    score_at, target_ids, target_owner, last_at = [], [], [], []
    owner = 0
    for number, row in enumerate(rows):
        column = 0
        for index in row:
            example = examples[index]
            start, prompt = column, len(example.prompt_ids)
            input_ids[number, start : start + prompt] = example.prompt_ids
            position_ids[number, start : start + prompt] = np.arange(prompt)
            visible_until[number, start : start + prompt] = start + example.length
            column += prompt
            for response in example.responses:
                size = len(response.token_ids)
                end = column + size
                input_ids[number, column:end] = response.token_ids
                position_ids[number, column:end] = np.arange(prompt, prompt + size)
                visible_until[number, column:end] = end
                scored = np.flatnonzero(response.scored)
                if prompt == 0:
                    scored = scored[scored > 0]  # the first token has no predecessor
                # Token j is predicted from the one before it; the first from the prompt's last, wherever this branch lies.
                before = np.where(scored > 0, column + scored - 1, start + prompt - 1)
                score_at.append(number * width + before)
                target_ids.append(response.token_ids[scored])
                target_owner.append(np.full(len(scored), owner))
                last_at.append(number * width + end - 1)
                owner += 1
                column = end
    return Batch(
        input_ids=input_ids,
        position_ids=position_ids,
        visible_until=visible_until[:, None, :, None],
        score_at=_flat(score_at),
        target_ids=_flat(target_ids),
        target_owner=_flat(target_owner),
        last_at=np.array(last_at, np.int64),
        example_ids=ids,
        response_count=owner,
        token_count=sum(examples[index].length for index in ids),
    )


def lay(
    examples: Sequence[Example], rows: Sequence[Sequence[int]], pad_id: int, shared_prompt: bool = True, packed_rows: bool = True
) -> Batch:
    """Lay the examples of a micro-batch behind each other in ONE row, whatever rows they are counted in; no examples: an idle batch.

    Attention does no work for what no query sees, so a row may be long, and only its last few positions are padding.
    shared_prompt false: each response has the prompt laid down before it once more, as an example of its own would. packed_rows false: each
    example, or each response with a prompt of its own, is a row, padded to the longest.
    """
    ids = [index for row in rows for index in row]
    if not ids:
        return idle_batch(pad_id)
    if shared_prompt:
        return make_batch(examples, [ids] if packed_rows else [[index] for index in ids], pad_id)
    texts = [Example(examples[index].prompt_ids, (response,)) for index in ids for response in examples[index].responses]
    numbers = range(len(texts))
    batch = make_batch(texts, [numbers] if packed_rows else [[number] for number in numbers], pad_id)
    return replace(batch, example_ids=np.array(ids, np.int64))


def lengths_of(examples: Sequence[Example]) -> np.ndarray:
    """Tokens that each example takes, int64 [examples]; of ``Examples`` without making one."""
    return examples.lengths if isinstance(examples, Examples) else np.array([example.length for example in examples], np.int64)


def idle_batch(pad_id: int) -> Batch:
    """A batch for a process that has no rows left while others do: a row of padding with one target and one response, of no example."""
    batch = make_batch([], [[]], pad_id)
    zero = np.zeros(1, np.int64)
    return replace(batch, score_at=zero, target_ids=zero, target_owner=zero, last_at=zero, response_count=1)


def _flat(parts: list[np.ndarray]) -> np.ndarray:
    """The parts behind each other, int64."""
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
