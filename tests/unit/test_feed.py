"""The feed: the same steps wherever it starts, fractions of epochs, more steps than an epoch has, and the last small step."""

from collections.abc import Iterable

import numpy as np
import pytest

from paddlealign.data.example import Batch, Example, Response
from paddlealign.data.order import PACKINGS
from paddlealign.training.feed import Feed, FeedStep


def examples(count: int) -> list[Example]:
    """Example i is made of the token i alone, so that rows can be told apart in a batch."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, (count, 2))
    return [
        Example(np.full(prompt, index, "int32"), (Response(np.full(answer, index, "int32"), np.ones(answer, bool)),))
        for index, (prompt, answer) in enumerate(sizes)
    ]


def feed(count: int = 11, epochs: float = 1.0, max_steps: int = -1, size: int = 2, accumulation: int = 2, packing: str = "micro_batch"):
    return Feed(
        examples(count),
        pad_id=99,
        seed=7,
        max_length=24,
        micro_batch_size=size,
        accumulation=accumulation,
        packing=packing,
        epochs=epochs,
        max_steps=max_steps,
    )


def rows(step: FeedStep) -> list[int]:
    return sorted(int(index) for batch in step.batches for index in batch.example_ids)


def all_rows(steps: Iterable[FeedStep]) -> list[int]:
    return sorted(index for step in steps for index in rows(step))


def assert_same(left: Batch, right: Batch) -> None:
    for name, value in vars(left).items():
        assert np.array_equal(value, vars(right)[name]), name


@pytest.mark.parametrize("packing", PACKINGS)
def test_starting_anywhere_equals_skipping(packing: str):
    whole = feed(epochs=3, packing=packing, size=2 if packing in ("micro_batch", "by_length") else 1)
    steps = list(whole.steps(0))
    assert len(steps) == whole.total_steps >= 6
    for first in range(whole.total_steps + 1):
        later = list(whole.steps(first))
        assert [step.epoch for step in later] == [step.epoch for step in steps[first:]]
        for left, right in zip(later, steps[first:], strict=True):
            for a, b in zip(left.batches, right.batches, strict=True):
                assert_same(a, b)


def test_every_epoch_has_every_row_once_in_another_order_and_keeps_its_last_small_step():
    steps = list(feed(epochs=2).steps(0))
    assert [len(rows(step)) for step in steps] == [4, 4, 3] * 2
    assert [step.epoch.is_integer() for step in steps] == [False, False, True] * 2
    assert [step.epoch for step in steps] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    first, second = ([rows(step) for step in part] for part in (steps[:3], steps[3:]))
    assert all_rows(steps[:3]) == all_rows(steps[3:]) == list(range(11))
    assert first != second
    for step in steps:
        for batch in step.batches:
            held = batch.input_ids[batch.input_ids != 99]
            assert set(held.tolist()) == set(batch.example_ids.tolist())


def test_the_rows_of_a_step_do_not_depend_on_its_split():
    splits = [[rows(step) for step in feed(epochs=2, size=size, accumulation=16 // size // 4).steps(0)] for size in (1, 2, 4)]
    assert splits[0] == splits[1] == splits[2]


@pytest.mark.parametrize(
    "epochs, steps", [(0.01, 1), (1 / 3, 1), (0.34, 2), (0.5, 2), (1.0, 3), (1.5, 5), (2.0, 6), (2.99, 9)]
)  # an epoch has 3 steps
def test_fractions_of_epochs_round_up_to_whole_steps(epochs: float, steps: int):
    made = feed(epochs=epochs)
    assert made.total_steps == steps == len(list(made.steps(0)))


@pytest.mark.parametrize("epochs, steps", [(1.1, 11), (2.2, 22), (0.3, 3), (1.7, 17), (1.11, 12)])
def test_a_fraction_that_is_whole_steps_stays_so(epochs: float, steps: int):
    """1.1 - 1 is a little more than 0.1 in binary; that is not a step more."""
    assert feed(count=10, epochs=epochs, size=1, accumulation=1).total_steps == steps


def test_max_steps_goes_beyond_an_epoch_and_wins():
    long = feed(epochs=1, max_steps=8)
    steps = list(long.steps(0))
    assert len(steps) == long.total_steps == 8
    assert [rows(step) for step in steps[:6]] == [rows(step) for step in feed(epochs=2).steps(0)]
    assert [step.epoch.is_integer() for step in steps] == [False, False, True, False, False, True, False, False]
    short = feed(epochs=5, max_steps=2)
    assert [rows(step) for step in short.steps(0)] == [rows(step) for step in steps[:2]]


def test_packed_rows_are_counted_under_zero_padding():
    for packing in ("next_fit", "best_fit"):
        steps = list(feed(packing=packing, size=1, accumulation=2).steps(0))
        assert all(batch.input_ids.shape[0] == 1 for step in steps for batch in step.batches)
        assert all_rows(steps) == list(range(11))
        assert len(steps) < len(list(feed(size=1, accumulation=2).steps(0)))


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_epoch_in_words_is_what_its_batches_hold(ranks: int):
    shares = [
        Feed(
            examples(11), pad_id=99, seed=7, max_length=24, micro_batch_size=2, accumulation=1, packing="micro_batch",
            epochs=1, max_steps=-1, rank=rank, ranks=ranks,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    positions = np.array([[sum(batch.input_ids.size for batch in step.batches) for step in share.steps(0)] for share in shares])
    tokens = sum(batch.token_count for share in shares for step in share.steps(0) for batch in step.batches)
    said = shares[0].describe_epoch(most=99)
    assert f"{1 - tokens / positions.sum():.1%} padding in the {positions.sum():,} positions" in said
    waits = 1 - positions.mean(0).sum() / positions.max(0).sum()
    assert said.startswith(f"an epoch: {shares[0].total_steps} steps, ") and " of them" not in said
    assert ("wait" in said) == (ranks > 1) and (ranks == 1 or f"wait {waits:.1%} of the time" in said)
    assert "positions of 2 of them" in shares[0].describe_epoch(most=2)
