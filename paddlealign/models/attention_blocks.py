"""Which queries of packed and branched rows meet which keys, in blocks, for attention where there is no flash-mask kernel."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

QUERY_BLOCK = 256
KEY_BLOCK = 64
HIDDEN_SCORE = -1e30


@dataclass(frozen=True)
class Block:
    """One row's queries start .. stop - 1 and the runs of key columns that they meet.

    clear: how many of the keys, from the first, are visible to every query. bias: float32 [queries, keys - clear] for the others, 0
    where visible and HIDDEN_SCORE where not; None where there are none.
    """

    row: int
    start: int
    stop: int
    runs: tuple[tuple[int, int], ...]
    clear: int
    bias: np.ndarray | None

    @property
    def keys(self) -> int:
        """How many key columns it meets."""
        return sum(stop - start for start, stop in self.runs)

    def places(self) -> Iterator[tuple[slice, slice]]:
        """Of each run of keys which columns of the block's scores it has, and where in the row it lies."""
        done = 0
        for start, stop in self.runs:
            yield slice(done, done + stop - start), slice(start, stop)
            done += stop - start


def _key_runs(seen: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Turn a bool [columns] into runs (start, stop) of whole key blocks that hold at least one True."""
    starts = np.arange(0, len(seen), KEY_BLOCK)
    touched = np.logical_or.reduceat(seen, starts)
    runs: list[tuple[int, int]] = []
    for start in starts[touched]:
        stop = min(int(start) + KEY_BLOCK, len(seen))
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], stop)
        else:
            runs.append((int(start), stop))
    return tuple(runs)


def _query_ranges(until: np.ndarray) -> list[tuple[int, int]]:
    """Cut a row, int32 [length], into ranges of at most QUERY_BLOCK queries: whole examples where they fit, equal parts of longer ones."""
    length = len(until)
    ends = np.flatnonzero(np.maximum.accumulate(until) <= np.arange(1, length + 1)) + 1  # nothing so far is seen from there on
    ranges: list[tuple[int, int]] = []
    start = last = 0
    for end in [*ends.tolist(), length]:
        if end - start > QUERY_BLOCK:
            if last > start:
                ranges.append((start, last))
            parts = -(-(end - last) // QUERY_BLOCK)
            cuts = [last + (end - last) * part // parts for part in range(parts + 1)]
            ranges += list(itertools.pairwise(cuts[:-1]))
            start = cuts[-2]
        last = end
    return [*ranges, (start, length)]


def _visible(until: np.ndarray, positions: np.ndarray, window: int | None, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which queries [q, 1] of a row see which keys [k]: bool [q, k]. until, positions: the row's, [length]."""
    seen = (keys <= queries) & (until[keys] > queries)
    return seen if window is None else seen & (positions[queries] - positions[keys] < window)


def plan_blocks(visible_until: np.ndarray, position_ids: np.ndarray, window: int | None) -> list[Block]:
    """Cut each row into blocks of queries with the keys that they can see.

    visible_until: int32 [rows, length]. position_ids: int64 [rows, length]. window: how many positions back a query sees, its own
    included; None: all. Every query sees itself at least, so no block is without keys.
    """
    blocks = []
    for row, (until, positions) in enumerate(zip(visible_until, position_ids, strict=True)):
        for start, stop in _query_ranges(until):
            queries = np.arange(start, stop)[:, None]
            seen = until[:stop] > start
            if window is not None:
                columns = np.flatnonzero(seen)  # of all columns the work would grow with the square of the row
                seen[columns] = _visible(until, positions, window, queries, columns).any(axis=0)
            runs = _key_runs(seen)
            keys = np.concatenate([np.arange(first, last) for first, last in runs])
            visible = _visible(until, positions, window, queries, keys)
            partly = np.flatnonzero(~visible.all(axis=0))
            clear = int(partly[0]) if len(partly) else len(keys)
            bias = np.where(visible[:, clear:], 0.0, HIDDEN_SCORE).astype("float32") if len(partly) else None
            blocks.append(Block(row, start, stop, runs, clear, bias))
    return blocks
