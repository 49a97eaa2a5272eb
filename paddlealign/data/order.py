"""Which examples stand in which step: a pure function of (seed, epoch, step), the same on every machine.

A resumed run needs the step's number and nothing else. The examples of a step do not depend on how the step is split into
micro-batches and ranks, as long as their product stays.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from paddlealign.data.packing import level_rows, pack_rows

Row = tuple[int, ...]  # example ids that share a packed row
MicroBatch = tuple[Row, ...]
Step = tuple[tuple[MicroBatch, ...], ...]  # [rank][micro-batch]; every rank has as many micro-batches
# Sources of examples: how many each has, and how much of them an epoch takes: 1 all of them, 0.25 a quarter, 3 all three times.
Mixture = Sequence[tuple[int, float]]

PACKINGS = ("micro_batch", "next_fit", "best_fit")


def epoch_plan(
    lengths: Sequence[int] | np.ndarray,
    *,
    seed: int,
    epoch: int,
    max_length: int,
    micro_batch_size: int,
    accumulation: int = 1,
    ranks: int = 1,
    packing: str = "micro_batch",
    shuffle: bool = True,
    mixture: Mixture = (),
) -> list[Step]:
    """All steps of an epoch. Every example comes exactly once, or as often as the mixture says.

    lengths: tokens of each example. max_length: tokens of a packed row; more if one example is longer.
    packing: "micro_batch": micro_batch_size counts examples, which are packed into as few rows as they need. "next_fit" (zero_padding)
    and "best_fit" (greedy_zero_padding): the shuffled examples are packed first and micro_batch_size counts the rows.
    accumulation: micro-batches of a step on each rank. The last step takes what is left, spread evenly over as few
    micro-batches as hold it; where fewer examples than ranks are left, some ranks get an empty micro-batch. mixture: see ``Mixture``; the
    examples stand in the order of its sources. It needs shuffle.
    """
    sizes = np.asarray(lengths, np.int64)
    capacity = row_capacity(sizes, max_length)
    units = _units(sizes, seed, epoch, capacity, packing, shuffle, mixture)
    per_step = micro_batch_size * accumulation * ranks
    steps = []
    for start in range(0, len(units), per_step):
        part = units[start : start + per_step]
        slots = -(-len(part) // (micro_batch_size * ranks)) * ranks
        cuts = [-(-len(part) * slot // slots) for slot in range(slots + 1)]  # the earlier ones take the odd example
        batches = [_micro_batch(part[a:b], sizes, capacity, packing) for a, b in pairwise(cuts)]
        steps.append(tuple(tuple(batches[rank::ranks]) for rank in range(ranks)))
    return steps


def evaluation_plan(lengths: Sequence[int] | np.ndarray, *, max_length: int, batch_size: int) -> list[MicroBatch]:
    """All examples in order, ``batch_size`` of them in each batch (the last may be smaller)."""
    plan = epoch_plan(lengths, seed=0, epoch=0, max_length=max_length, micro_batch_size=batch_size, shuffle=False)
    return [step[0][0] for step in plan]


def row_capacity(lengths: Sequence[int] | np.ndarray, max_length: int) -> int:
    """Tokens that a packed row holds: max_length, or the longest example (a pair may be longer)."""
    return max([max_length, *map(int, lengths)])


def mixed_epoch(mixture: Mixture, seed: int, epoch: int) -> np.ndarray:
    """The examples of an epoch, int64, source by source: each source is gone through in a shuffled round, and an epoch takes its next part.

    So no example of a source comes a second time before all of it came once, over all epochs; whole parts are rounded, not lost.
    """
    taken, first = [], 0
    for number, (count, weight) in enumerate(mixture):
        turns = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1, number]))).permutation(count)
        start, end = round(epoch * weight * count), round((epoch + 1) * weight * count)
        taken.append(first + turns[np.arange(start, end) % max(count, 1)])
        first += count
    return np.concatenate(taken)


def _units(sizes: np.ndarray, seed: int, epoch: int, capacity: int, packing: str, shuffle: bool, mixture: Mixture) -> list[Row]:
    """What a micro-batch is counted in, in the epoch's order: single examples, or packed rows of them."""
    if packing not in PACKINGS:
        raise ValueError(f"packing {packing!r} is not one of {PACKINGS}")
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    order = random.permutation(len(sizes)) if shuffle else np.arange(len(sizes))
    if any(weight != 1.0 for _, weight in mixture):
        order = random.permutation(mixed_epoch(mixture, seed, epoch))
    if packing == "micro_batch":
        return [(int(index),) for index in order]
    rows = pack_rows(sizes[order], capacity, best_fit=packing == "best_fit")
    if shuffle and packing == "best_fit":
        # Best fit lays the longest examples first; unshuffled, the epoch would go from long to short.
        rows = [rows[index] for index in random.permutation(len(rows))]
    return [tuple(int(order[index]) for index in row) for row in rows]


def _micro_batch(units: list[Row], sizes: np.ndarray, capacity: int, packing: str) -> MicroBatch:
    """The rows of a micro-batch."""
    if packing != "micro_batch":
        return tuple(units)
    ids = [unit[0] for unit in units]
    return tuple(tuple(ids[index] for index in row) for row in level_rows(sizes[ids], capacity)) if ids else ()
