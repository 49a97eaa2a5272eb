"""The training rows in their order: which examples make which step, laid into batches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from paddlealign.data.example import Batch, Example
from paddlealign.data.order import Mixture, Step, epoch_plan
from paddlealign.data.packing import idle_batch, make_batch


@dataclass(frozen=True)
class FeedStep:
    """One optimizer step's micro-batches.

    epoch: passes over the data after this step, a fraction within one. ends_epoch: whether the step is its epoch's last.
    """

    batches: tuple[Batch, ...]
    epoch: float
    ends_epoch: bool


class Feed:
    """The steps of a run, a pure function of the examples, the sizes and the seed; it starts anywhere at no cost but planning."""

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        pad_id: int,
        seed: int,
        max_length: int,
        micro_batch_size: int,
        accumulation: int,
        packing: str,
        epochs: float,
        max_steps: int,
        rank: int = 0,
        ranks: int = 1,
        mixture: Mixture = (),
    ) -> None:
        """packing, mixture: see ``data.order``. max_steps above 0 wins over epochs. rank, ranks: of so many shares of a step."""
        self._rank = rank
        self._examples, self._pad_id = examples, pad_id
        self._lengths = np.array([example.length for example in examples])
        self._plan = lambda epoch: epoch_plan(
            self._lengths,
            seed=seed,
            epoch=epoch,
            max_length=max_length,
            micro_batch_size=micro_batch_size,
            accumulation=accumulation,
            ranks=ranks,
            packing=packing,
            mixture=mixture,
        )
        self.total_steps = max_steps if max_steps > 0 else self._count_steps(epochs)

    def _count_steps(self, epochs: float) -> int:
        whole = sum(len(self._plan(epoch)) for epoch in range(int(epochs)))
        rest = epochs - int(epochs)
        # Rounded first: 1.1 epochs of 10 steps are 11 steps, though 1.1 - 1 is a little more than 0.1 in binary.
        return whole + (math.ceil(round(rest * len(self._plan(int(epochs))), 6)) if rest else 0)

    def steps(self, first: int) -> Iterator[FeedStep]:
        """All steps from number ``first`` (0 is the run's first) to the last."""
        done, epoch = 0, 0
        while done < self.total_steps:
            plan = self._plan(epoch)
            for index in range(max(0, first - done), min(len(plan), self.total_steps - done)):
                yield FeedStep(self._lay(plan[index]), epoch + (index + 1) / len(plan), index + 1 == len(plan))
            done += len(plan)
            epoch += 1

    def alone(self, example: int) -> Batch:
        """One example as a batch of its own."""
        return make_batch(self._examples, ((example,),), self._pad_id)

    def _lay(self, step: Step) -> tuple[Batch, ...]:
        return tuple(make_batch(self._examples, rows, self._pad_id) if rows else idle_batch(self._pad_id) for rows in step[self._rank])
