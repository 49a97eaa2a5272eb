"""Which examples stand in which step: a pure function of (seed, epoch, step), the same on every machine.

A resumed run needs the step's number and nothing else. The examples of a step do not depend on how the step is split into
micro-batches and ranks, as long as their product stays. Which of them share a micro-batch changes no gradient: they are shared out by
length, so that all micro-batches have about as many tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from paddlealign.data.packing import Packed, pack, row_length, share_out

Row = tuple[int, ...]  # example ids that are counted as one
MicroBatch = tuple[Row, ...]
Step = tuple[tuple[MicroBatch, ...], ...]  # [rank][micro-batch]; every rank has as many micro-batches
# Sources of examples: how many each has, and how much of them an epoch takes: 1 all of them, 0.25 a quarter, 3 all three times.
Mixture = Sequence[tuple[int, float]]

PACKINGS = ("micro_batch", "by_length", "next_fit", "best_fit", "tokens")
# Steps whose examples are sorted together under "by_length", but at most a fourth of an epoch: many enough for like lengths, few enough
# to leave the epoch shuffled.
STEPS_OF_A_SORT = 50


@dataclass(frozen=True)
class EpochPlan:
    """An epoch's steps. It keeps the order of the examples, and lays a step out when it is asked for.

    lengths: int64 [examples], tokens of each. order: int32 or int64, the epoch's examples. starts: int64 [rows + 1], where in the order
    each packed row begins and the last ends; None where single examples are counted. micro_batch_size: of what is counted.
    """

    lengths: np.ndarray
    order: np.ndarray
    starts: np.ndarray | None
    micro_batch_size: int
    accumulation: int
    ranks: int

    @property
    def units(self) -> int:
        """How many examples or packed rows the epoch has."""
        return len(self.order) if self.starts is None else len(self.starts) - 1

    @property
    def steps(self) -> int:
        """How many steps the epoch has."""
        return -(-self.units // self._of_a_step)

    @property
    def _of_a_step(self) -> int:
        return self.micro_batch_size * self.accumulation * self.ranks

    def step(self, index: int) -> Step:
        """The step of this index, 0 to ``steps - 1``.

        The last step takes what is left, spread evenly over as few micro-batches as hold it; where fewer examples than ranks are left, some
        ranks get an empty micro-batch.
        """
        first, end = index * self._of_a_step, min((index + 1) * self._of_a_step, self.units)
        cuts = np.arange(first, end + 1) if self.starts is None else self.starts[first : end + 1]
        examples, cuts = self.order[cuts[0] : cuts[-1]], cuts - cuts[0]
        sizes = np.add.reduceat(self.lengths[examples], cuts[:-1])
        ids = examples.tolist()
        units = [tuple(ids[a:b]) for a, b in pairwise(cuts.tolist())]
        slots = -(-len(units) // (self.micro_batch_size * self.ranks)) * self.ranks
        shares = [-(-len(units) * slot // slots) for slot in range(slots + 1)]  # the earlier ones take the odd example
        batches = [tuple(units[place] for place in batch) for batch in share_out(sizes, np.diff(shares).tolist())]
        return tuple(tuple(batches[rank :: self.ranks]) for rank in range(self.ranks))


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
) -> EpochPlan:
    """The steps of an epoch. Every example comes exactly once, or as often as the mixture says.

    lengths: tokens of each example, 1 or more. max_length: tokens of a packed row.
    packing: "micro_batch": micro_batch_size counts examples. "by_length": the same, with examples of like length in each step, and the
    steps shuffled. "next_fit" (zero_padding) and "best_fit" (greedy_zero_padding): the shuffled examples are packed first and
    micro_batch_size counts the rows; they are longer where one example is longer. "tokens": as best_fit, but the rows stay: a longer
    example is a row of its own.
    accumulation: micro-batches of a step on each rank. mixture: see ``Mixture``; the examples stand in the order of its sources. It needs
    shuffle.
    """
    if packing not in PACKINGS:
        raise ValueError(f"packing {packing!r} is not one of {PACKINGS}")
    sizes = np.asarray(lengths, np.int64)
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    order = _shuffled(np.arange(len(sizes)), random) if shuffle else np.arange(len(sizes))
    if any(weight != 1.0 for _, weight in mixture):
        order = _shuffled(mixed_epoch(mixture, seed, epoch), random)
    of_a_step = micro_batch_size * accumulation * ranks
    starts = None
    if packing == "by_length":
        order = _by_length(order, sizes, of_a_step, random)
    elif packing != "micro_batch":
        capacity = max_length if packing == "tokens" else row_capacity(sizes, max_length)
        packed = pack(np.minimum(sizes[order], capacity), capacity, best_fit=packing != "next_fit")
        if shuffle and packing != "next_fit":
            # Best fit lays the longest examples first; unshuffled, the epoch would go from long to short.
            packed = _rows_in_order(packed, random.permutation(len(packed.starts) - 1))
        order, starts = order[packed.order], packed.starts
    return EpochPlan(sizes, order, starts, micro_batch_size, accumulation, ranks)


def evaluation_plan(lengths: Sequence[int] | np.ndarray, *, batch_size: int, ranks: int = 1) -> EpochPlan:
    """All examples in order, ``batch_size`` of them in each rank's batch of a step (the last may be smaller)."""
    return epoch_plan(lengths, seed=0, epoch=0, max_length=0, micro_batch_size=batch_size, ranks=ranks, shuffle=False)


def row_capacity(lengths: Sequence[int] | np.ndarray, max_length: int) -> int:
    """Tokens that a packed row holds: max_length, or the longest example (a pair may be longer)."""
    return int(np.max(lengths, initial=max_length))


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


@dataclass(frozen=True)
class Padding:
    """What lies in the steps that were looked at, over all ranks, idle ones included.

    steps: how many. tokens: that are not padding. positions: with it. waited: positions that the ranks would have besides, were all as full
    as their step's fullest.
    """

    steps: int
    tokens: int
    positions: int
    waited: int

    @property
    def share(self) -> float:
        """Padding among the positions."""
        return 1 - self.tokens / self.positions

    @property
    def waiting(self) -> float:
        """How much of all ranks' time is spent waiting for the fullest."""
        return self.waited / (self.positions + self.waited)


def padding_of(plan: EpochPlan, most: int) -> Padding:
    """Add up an epoch's positions: of all steps where these are at most ``most``, otherwise of so many at even distances."""
    tokens = positions = waited = 0
    chosen = np.unique(np.linspace(0, plan.steps - 1, min(most, plan.steps)).astype(int)).tolist()
    for index in chosen:
        filled = [[int(plan.lengths[[i for row in batch for i in row]].sum()) for batch in rank] for rank in plan.step(index)]
        of_rank = [sum(row_length(batch) for batch in rank) for rank in filled]
        tokens += sum(map(sum, filled))
        positions += sum(of_rank)
        waited += max(of_rank) * len(of_rank) - sum(of_rank)
    return Padding(len(chosen), tokens, positions, waited)


def _shuffled(examples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The examples shuffled, in half the memory where their ids allow it."""
    small = len(examples) and int(examples.max()) < 1 << 31
    return random.permutation(examples.astype(np.int32) if small else examples)


def _by_length(order: np.ndarray, sizes: np.ndarray, of_a_step: int, random: np.random.Generator) -> np.ndarray:
    """Sort the examples of some steps at a time, then shuffle the epoch's whole steps. What is left for the last step stays."""
    steps = len(order) // of_a_step
    together = of_a_step * max(1, min(STEPS_OF_A_SORT, steps // 4))
    found, whole = order.copy(), steps * of_a_step
    for first in range(0, whole, together):
        window = order[first : min(first + together, whole)]
        found[first : first + len(window)] = window[np.argsort(sizes[window], kind="stable")]
    found[:whole] = found[:whole].reshape(steps, of_a_step)[random.permutation(steps)].ravel()
    return found


def _rows_in_order(packed: Packed, turns: np.ndarray) -> Packed:
    """The same rows, row ``turns[0]`` first."""
    sizes = np.diff(packed.starts)[turns]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    places = np.repeat(packed.starts[turns] - starts[:-1], sizes) + np.arange(len(packed.order))
    return Packed(packed.order[places], starts)
