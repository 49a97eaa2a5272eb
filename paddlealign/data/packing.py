"""Examples to packed rows: which examples share a row, and the arrays of a batch."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from paddlealign.arguments.degrees import ROW_MULTIPLE
from paddlealign.data.example import Batch, Example


def pack_rows(lengths: Sequence[int] | np.ndarray, capacity: int, best_fit: bool) -> list[list[int]]:
    """Put examples of the given lengths into rows of at most ``capacity`` tokens. Returns indices into ``lengths``.

    best_fit: longest first, each into the fullest row that still holds it. Otherwise in order, a new row when the last one is
    full (next fit). Raises ValueError if one example is longer than a row.
    """
    sizes = [int(length) for length in lengths]
    if sizes and max(sizes) > capacity:
        raise ValueError(f"an example of {max(sizes)} tokens does not fit into a row of {capacity}")
    return _best_fit(sizes, capacity) if best_fit else _next_fit(sizes, capacity)


def _next_fit(sizes: list[int], capacity: int) -> list[list[int]]:
    rows: list[list[int]] = []
    room = -1
    for index, size in enumerate(sizes):
        if size > room:
            rows.append([])
            room = capacity
        rows[-1].append(index)
        room -= size
    return rows


def _best_fit(sizes: list[int], capacity: int) -> list[list[int]]:
    rows: list[list[int]] = []
    rows_by_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # the different rooms that rows have left, ascending
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[index]
        place = bisect_left(rooms, size)
        if place == len(rooms):
            row, room = len(rows), capacity
            rows.append([])
        else:
            room = rooms[place]
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                del rows_by_room[room], rooms[place]
        rows[row].append(index)
        room -= size
        if room not in rows_by_room:
            rows_by_room[room] = []
            insort(rooms, room)
        rows_by_room[room].append(row)
    return rows


def level_rows(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[list[int]]:
    """As few rows as best fit needs, but filled evenly where that works: all rows of a batch are as long as its longest."""
    rows = pack_rows(lengths, capacity, best_fit=True)
    level: list[list[int]] = [[] for _ in rows]
    filled = [0] * len(rows)
    for index in sorted(range(len(lengths)), key=lambda i: -int(lengths[i])):
        row = filled.index(min(filled))
        level[row].append(index)
        filled[row] += int(lengths[index])
    longest = max((sum(int(lengths[i]) for i in row) for row in rows), default=0)
    return level if max(filled, default=0) < longest else rows


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
    width = max(-(-needed // ROW_MULTIPLE) * ROW_MULTIPLE, ROW_MULTIPLE) if length is None else length
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


def idle_batch(pad_id: int) -> Batch:
    """A batch for a process that has no rows left while others do: a row of padding with one target and one response, of no example."""
    batch = make_batch([], [[]], pad_id)
    zero = np.zeros(1, np.int64)
    return replace(batch, score_at=zero, target_ids=zero, target_owner=zero, last_at=zero, response_count=1)


def _flat(parts: list[np.ndarray]) -> np.ndarray:
    """The parts behind each other, int64."""
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
