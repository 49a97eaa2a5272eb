"""The training rows in their order: which examples make which step, laid into batches."""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paddlealign.data.example import Batch, Example
from paddlealign.data.order import EpochPlan, MicroBatch, Mixture, Step, epoch_plan, padding_of
from paddlealign.data.packing import lay, lengths_of


@dataclass(frozen=True)
class FeedStep:
    """One optimizer step's micro-batches.

    epoch: passes over the data after this step, a fraction within one. It is whole at an epoch's last step.
    """

    batches: tuple[Batch, ...]
    epoch: float


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
        shared_prompt: bool = True,
        packed_rows: bool = True,
    ) -> None:
        """packing, mixture: see ``data.order``. max_steps above 0 wins over epochs. rank, ranks: of so many shares of a step.

        shared_prompt, packed_rows: see ``packing.lay``; the examples of each micro-batch are the same.
        """
        self._rank = rank
        self._shared_prompt, self._packed_rows = shared_prompt, packed_rows
        self._examples, self._pad_id = examples, pad_id
        self._lengths = lengths_of(examples)

        @functools.lru_cache(1)
        def plan(epoch: int) -> EpochPlan:
            return epoch_plan(
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

        self._plan = plan
        self._counted: dict[int, int] = {}
        self.total_steps = max_steps if max_steps > 0 else self._count_steps(epochs)

    def _count_steps(self, epochs: float) -> int:
        whole = sum(self._steps_of(epoch) for epoch in range(int(epochs)))
        rest = epochs - int(epochs)
        # Rounded first: 1.1 epochs of 10 steps are 11 steps, though 1.1 - 1 is a little more than 0.1 in binary.
        return whole + (math.ceil(round(rest * self._steps_of(int(epochs)), 6)) if rest else 0)

    def _steps_of(self, epoch: int) -> int:
        """Steps of an epoch, which is packed once to count them."""
        if epoch not in self._counted:
            self._counted[epoch] = self._plan(epoch).steps
        return self._counted[epoch]

    def steps(self, first: int) -> Iterator[FeedStep]:
        """All steps from number ``first`` (0 is the run's first) to the last."""
        done, epoch = 0, 0
        while done < self.total_steps:
            count = self._steps_of(epoch)
            for index in range(max(0, first - done), min(count, self.total_steps - done)):
                step = self._plan(epoch).step(index)
                yield FeedStep(self._lay(step), epoch + (index + 1) / count)
            done += count
            epoch += 1

    @property
    def epoch_steps(self) -> int:
        """Steps of the first epoch."""
        return self._steps_of(0)

    def tokens_of_a_step(self, most: int) -> tuple[float, float]:
        """The mean tokens of a step over all ranks, and the share of padding beside them; from at most so many steps of the first epoch."""
        found = padding_of(self._plan(0), most)
        return found.tokens / found.steps, found.share

    def describe_epoch(self, most: int) -> str:
        """What the first epoch lays out over all ranks, in words, from at most so many of its steps."""
        plan = self._plan(0)
        if not (self._shared_prompt and self._packed_rows):
            return f"an epoch: {plan.steps:,} steps, each response with its prompt in a row of its own"
        found = padding_of(plan, most)
        part = f" of {found.steps:,} of them" if found.steps < plan.steps else ""
        waits = f"; ranks wait {found.waiting:.1%} of the time for the fullest" if plan.ranks > 1 else ""
        return f"an epoch: {plan.steps:,} steps, {found.share:.1%} padding in the {found.positions:,} positions{part}{waits}"

    def alone(self, example: int) -> Batch:
        """One example as a batch of its own."""
        return self._batch(((example,),))

    def _lay(self, step: Step) -> tuple[Batch, ...]:
        return tuple(self._batch(rows) for rows in step[self._rank])

    def _batch(self, rows: MicroBatch) -> Batch:
        return lay(self._examples, rows, self._pad_id, self._shared_prompt, self._packed_rows)
