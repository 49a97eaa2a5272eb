"""Which examples stand in which step: literal plans, and what they depend on."""

import numpy as np
import pytest

from paddlealign.data.order import epoch_plan, evaluation_plan


def ids(step) -> list[int]:
    return [index for rank in step for batch in rank for row in batch for index in row]


def plan(lengths, **changes):
    settings = {"seed": 1, "epoch": 0, "max_length": 10, "micro_batch_size": 2}
    return epoch_plan(lengths, **{**settings, **changes})


def test_plans_written_out():
    lengths = [4, 5, 6, 3, 9]
    assert plan(lengths, shuffle=False) == [((((1, 0),),),), ((((2, 3),),),), ((((4,),),),)]
    assert plan(lengths, shuffle=False, accumulation=2) == [((((1, 0),), ((2, 3),)),), ((((4,),),),)]
    assert plan(lengths, shuffle=False, ranks=2) == [((((1, 0),),), (((2, 3),),)), ((((4,),),), ((),))]
    assert plan(lengths, shuffle=False, packing="next_fit") == [((((0, 1), (2, 3)),),), ((((4,),),),)]
    assert plan(lengths, shuffle=False, packing="best_fit") == [((((4,), (2, 0)),),), ((((1, 3),),),)]


def test_evaluation_goes_in_order():
    assert evaluation_plan([4, 5, 6, 3, 9], max_length=20, batch_size=3) == [((2, 1, 0),), ((4, 3),)]


def test_one_example_longer_than_a_row_makes_rows_longer():
    (step,) = plan([30, 4, 10, 16], shuffle=False, micro_batch_size=4)
    assert step == ((((0,), (3, 2, 1)),),)


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
    for packing in ("micro_batch", "next_fit", "best_fit"):
        whole = [set(ids(step)) for step in plan(lengths, micro_batch_size=8, packing=packing)]
        for size, accumulation, ranks in [(1, 8, 1), (2, 2, 2), (1, 1, 8), (4, 1, 2)]:
            split = plan(lengths, micro_batch_size=size, accumulation=accumulation, ranks=ranks, packing=packing)
            assert [set(ids(step)) for step in split] == whole


def test_the_last_step_is_spread_evenly():
    """19 examples, 2 ranks x 3 micro-batches of 2: the last step has 7, on 2 micro-batches of each rank."""
    last = plan([1] * 19, micro_batch_size=2, accumulation=3, ranks=2)[-1]
    assert [[sum(len(row) for row in batch) for batch in rank] for rank in last] == [[2, 2], [2, 1]]


def test_best_fit_rows_do_not_come_by_length():
    lengths = np.arange(1, 401)
    rows = [row for step in plan(lengths, max_length=400, packing="best_fit") for rank in step for batch in rank for row in batch]
    longest = [max(row) for row in rows]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)


def test_an_unknown_packing_is_refused():
    with pytest.raises(ValueError, match="packing 'tight' is not one of"):
        plan([1], packing="tight")
