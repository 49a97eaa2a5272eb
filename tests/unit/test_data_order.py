"""Which examples stand in which step: literal plans, and what they depend on."""

import json
from pathlib import Path

import numpy as np
import pytest

from paddlealign.data.order import PACKINGS, EpochPlan, Step, epoch_plan, evaluation_plan, padding_of

# Plans of version 0.1.0, which laid out whole epochs: a run that was started with it must find its rows again.
OLD_PLANS = json.loads((Path(__file__).parent / "plan_files" / "plans.json").read_text())


def all_steps(plan: EpochPlan) -> list[Step]:
    return [plan.step(index) for index in range(plan.steps)]


def ids(step: Step) -> list[int]:
    return [index for rank in step for batch in rank for row in batch for index in row]


def plan(lengths, **changes) -> list[Step]:
    settings = {"seed": 1, "epoch": 0, "max_length": 10, "micro_batch_size": 2}
    return all_steps(epoch_plan(lengths, **{**settings, **changes}))


def test_plans_written_out():
    lengths = [4, 5, 6, 3, 9]
    assert plan(lengths, shuffle=False) == [((((1,), (0,)),),), ((((2,), (3,)),),), ((((4,),),),)]
    # 6 and 3, 5 and 4: as even as may be
    assert plan(lengths, shuffle=False, accumulation=2) == [((((2,), (3,)), ((1,), (0,))),), ((((4,),),),)]
    assert plan(lengths, shuffle=False, ranks=2) == [((((2,), (3,)),), (((1,), (0,)),)), ((((4,),),), ((),))]
    assert plan(lengths, shuffle=False, packing="next_fit") == [((((0, 1), (2, 3)),),), ((((4,),),),)]
    assert plan(lengths, shuffle=False, packing="best_fit") == [((((2, 0), (4,)),),), ((((1, 3),),),)]
    assert plan(lengths, shuffle=False, packing="tokens", max_length=8, micro_batch_size=1) == [
        ((((4,),),),), ((((2,),),),), ((((1, 3),),),), ((((0,),),),)
    ]  # fmt: skip


def test_evaluation_goes_in_order_and_is_shared_out_evenly():
    lengths = [4, 5, 6, 3, 9]
    assert all_steps(evaluation_plan(lengths, batch_size=3)) == [((((2,), (1,), (0,)),),), ((((4,), (3,)),),)]
    assert all_steps(evaluation_plan(lengths, batch_size=3, ranks=2)) == [((((4,), (0,), (3,)),), (((2,), (1,)),))]


def test_one_example_longer_than_a_row_makes_rows_longer_unless_tokens_are_counted():
    lengths = [30, 4, 10, 16]
    (step,) = plan(lengths, shuffle=False, micro_batch_size=4, packing="best_fit")
    assert step == ((((0,), (3, 2, 1)),),)
    (step,) = plan(lengths, shuffle=False, micro_batch_size=4, packing="tokens", max_length=16)
    assert step == ((((0,), (3,), (2, 1)),),)


@pytest.mark.parametrize("old", OLD_PLANS, ids=lambda old: f"{old['packing']}-{old['seed']}-{old['split']}-{bool(old['mixture'])}")
def test_steps_hold_the_examples_that_they_always_held(old: dict):
    size, accumulation, ranks = old["split"]
    found = plan(
        old["lengths"],
        seed=old["seed"],
        epoch=old["epoch"],
        max_length=100,
        micro_batch_size=size,
        accumulation=accumulation,
        ranks=ranks,
        packing=old["packing"],
        shuffle=old["shuffle"],
        mixture=old["mixture"],
    )
    assert [sorted(ids(step)) for step in found] == old["steps"]
    if old["packing"] != "micro_batch":
        assert [sorted(list(row) for rank in step for batch in rank for row in batch) for step in found] == old["rows"]


def test_steps_of_like_length():
    """Every example once, whole steps of neighbours in length, in no order of length, and never two epochs alike."""
    lengths = np.random.default_rng(2).permutation(np.arange(1, 1002))
    first, second = (plan(lengths, packing="by_length", micro_batch_size=5, accumulation=2, epoch=epoch) for epoch in (0, 1))
    assert sorted(index for step in first for index in ids(step)) == list(range(1001)) and first != second
    ranges = [np.ptp(lengths[ids(step)]) for step in first[:-1]]
    shuffled = [np.ptp(lengths[ids(step)]) for step in plan(lengths, micro_batch_size=5, accumulation=2)[:-1]]
    assert max(ranges) < 150 < 600 < np.mean(shuffled) and len(ids(first[-1])) == 1
    means = [lengths[ids(step)].mean() for step in first]
    assert 0.25 < np.mean(np.diff(means) > 0) < 0.75
    alike = plan(lengths, packing="by_length", micro_batch_size=1, accumulation=5, ranks=2)
    assert [set(ids(step)) for step in alike] == [set(ids(step)) for step in first]
    assert [len(ids(step)) for step in plan([3, 1, 2], packing="by_length", micro_batch_size=4)] == [3]


def test_what_a_step_holds_is_shared_out_by_tokens():
    """A lone long example among short ones: the micro-batches keep their number of examples, and the long one gets the shortest."""
    lengths = [10, 1, 9, 8, 2, 3, 4, 7, 5]
    step = plan(lengths, shuffle=False, micro_batch_size=3, accumulation=3)[0]
    assert [[sum(lengths[index] for (index,) in batch) for batch in rank] for rank in step] == [[17, 16, 16]]
    assert all(len(batch) == 3 for rank in step for batch in rank)


def test_padding_and_waiting_are_counted():
    """5 and 12 tokens are 8 and 16 positions; the process with 8 waits for as long as 8 more take."""
    found = padding_of(epoch_plan([5, 12], seed=0, epoch=0, max_length=20, micro_batch_size=1, ranks=2), most=9)
    assert (found.steps, found.tokens, found.positions, found.waited) == (1, 17, 24, 8)
    assert (found.share, found.waiting) == (1 - 17 / 24, 8 / 32)
    assert padding_of(epoch_plan([5] * 100, seed=0, epoch=0, max_length=20, micro_batch_size=1), most=7).steps == 7


def test_an_epoch_is_a_function_of_seed_and_epoch():
    lengths = np.arange(1, 51)
    assert plan(lengths, max_length=60) == plan(list(lengths), max_length=60)
    orders = [plan(lengths, max_length=60, seed=seed, epoch=epoch) for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_the_order_stays_over_versions():
    """Written out once: a resumed run must find the order that its first half had."""
    assert ids(plan([1] * 8, micro_batch_size=8)[0]) == [1, 7, 0, 4, 6, 3, 5, 2]


def test_splitting_a_step_does_not_change_its_examples():
    lengths = np.random.default_rng(0).integers(1, 10, 101)
    for packing in PACKINGS:
        whole = [set(ids(step)) for step in plan(lengths, micro_batch_size=8, packing=packing)]
        for size, accumulation, ranks in [(1, 8, 1), (2, 2, 2), (1, 1, 8), (4, 1, 2)]:
            split = plan(lengths, micro_batch_size=size, accumulation=accumulation, ranks=ranks, packing=packing)
            assert [set(ids(step)) for step in split] == whole


def test_the_last_step_is_spread_evenly():
    """19 examples, 2 ranks x 3 micro-batches of 2: the last step has 7, on 2 micro-batches of each rank."""
    last = plan([1] * 19, micro_batch_size=2, accumulation=3, ranks=2)[-1]
    assert [[len(batch) for batch in rank] for rank in last] == [[2, 2], [2, 1]]


def test_best_fit_rows_do_not_come_by_length():
    lengths = np.arange(1, 401)
    rows = [row for step in plan(lengths, max_length=400, packing="best_fit") for rank in step for batch in rank for row in batch]
    longest = [max(row) for row in rows]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)


def test_an_unknown_packing_is_refused():
    with pytest.raises(ValueError, match="packing 'tight' is not one of"):
        plan([1], packing="tight")
