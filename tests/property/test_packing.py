"""Packing and order for any lengths: nothing is lost, no row too long, and the mask is what the words say."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paddlealign.data.example import Example, Response
from paddlealign.data.order import PACKINGS, epoch_plan, row_capacity
from paddlealign.data.packing import make_batch, pack_rows, share_out

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=60)


@given(LENGTHS, st.integers(60, 120), st.booleans())
def test_rows_hold_every_example_once_and_no_more_than_they_can(lengths, capacity, best_fit):
    rows = pack_rows(lengths, capacity, best_fit)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    filled = [sum(lengths[index] for index in row) for row in rows]
    assert max(filled) <= capacity
    if best_fit:
        # Two rows that fit into one are never left apart, so at most one row is half empty: padding is under one half.
        assert sum(1 for tokens in filled if 2 * tokens <= capacity) <= 1
    else:
        assert all(a + lengths[row[0]] > capacity for a, row in zip(filled, rows[1:], strict=False))
        assert [index for row in rows for index in row] == list(range(len(lengths)))


@given(LENGTHS, st.integers(60, 120))
def test_best_fit_is_what_its_name_says(lengths, capacity):
    """Example by example, longest first: into the fullest row that holds it, of equally full ones the one that was filled last."""
    rows: list[tuple[int, int, list[int]]] = []  # room, when it was filled last, examples
    made = []
    for turn, index in enumerate(sorted(range(len(lengths)), key=lambda i: -lengths[i])):
        fitting = [row for row in rows if row[0] >= lengths[index]]
        room, _, held = row = min(fitting, key=lambda row: (row[0], -row[1]), default=(capacity, 0, []))
        if fitting:
            rows.remove(row)
        else:
            made.append(held)
        held.append(index)
        rows.append((room - lengths[index], turn, held))
    assert pack_rows(lengths, capacity, best_fit=True) == made


@given(LENGTHS, st.integers(1, 9))
def test_shares_differ_by_one_example_at_most_in_tokens(lengths, number):
    """Of equal counts no two batches differ by more tokens than the longest example has; each has its number of examples."""
    lengths = lengths[: len(lengths) // number * number]
    counts = [len(lengths) // number] * number
    shares = share_out(np.array(lengths, np.int64), counts)
    assert [len(share) for share in shares] == counts
    assert sorted(index for share in shares for index in share) == list(range(len(lengths)))
    tokens = [sum(lengths[index] for index in share) for share in shares]
    assert max(tokens) - min(tokens) <= max(lengths, default=0)


@given(
    LENGTHS,
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from(PACKINGS),
    st.booleans(),
)
def test_an_epoch_has_every_example_once(lengths, seed, epoch, size, accumulation, ranks, packing, shuffle):
    plan = epoch_plan(
        lengths,
        seed=seed,
        epoch=epoch,
        max_length=50,
        micro_batch_size=size,
        accumulation=accumulation,
        ranks=ranks,
        packing=packing,
        shuffle=shuffle,
    )
    steps = [plan.step(index) for index in range(plan.steps)]
    assert steps[::-1] == [plan.step(index) for index in reversed(range(plan.steps))]
    rows = [row for step in steps for rank in step for batch in rank for row in batch]
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    limit = row_capacity(lengths, 50) if packing != "tokens" else 50
    assert all(sum(lengths[index] for index in row) <= limit or len(row) == 1 for row in rows)
    for number, step in enumerate(steps):
        counts = [[len(batch) for batch in rank] for rank in step]
        assert len(counts) == ranks
        assert len({len(rank) for rank in counts}) == 1
        assert 1 <= len(counts[0]) <= accumulation
        assert all(count <= size for rank in counts for count in rank)
        if number < len(steps) - 1:
            assert all(count == size for rank in counts for count in rank) and len(counts[0]) == accumulation


@st.composite
def examples(draw) -> list[Example]:
    """One to five examples of one to three branches, with empty prompts and unscored tokens among them."""
    result = []
    for _ in range(draw(st.integers(1, 5))):
        prompt = draw(st.lists(st.integers(1, 99), max_size=4))
        branches = draw(st.lists(st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=1, max_size=4), min_size=1, max_size=3))
        responses = [Response(np.array([i for i, _ in branch], np.int32), np.array([on for _, on in branch])) for branch in branches]
        result.append(Example(np.array(prompt, np.int32), tuple(responses)))
    return result


@given(examples(), st.integers(20, 40))
def test_the_mask_and_the_targets_against_their_definition(items, capacity):
    """Token by token: who sees whom, where each token stands in its own sequence, and what predicts it."""
    rows = pack_rows([item.length for item in items], capacity, best_fit=True)
    batch = make_batch(items, rows, pad_id=0)
    width = batch.input_ids.shape[1]
    targets = []
    for number, row in enumerate(rows):
        # Each token as (example, branch or None for the prompt, place in its sequence).
        labels: list[tuple[int, int | None, int]] = []
        for index in row:
            prompt = len(items[index].prompt_ids)
            labels += [(index, None, place) for place in range(prompt)]
            for branch, response in enumerate(items[index].responses):
                labels += [(index, branch, prompt + place) for place in range(len(response.token_ids))]
        for query in range(width):
            seen = [key for key in range(query + 1) if query < batch.visible_until[number, 0, key, 0]]
            if query >= len(labels):
                assert seen == [query]
                continue
            index, branch, place = labels[query]
            assert seen == [k for k, (i, b, p) in enumerate(labels[: query + 1]) if i == index and b in (None, branch) and p <= place]
            assert batch.position_ids[number, query] == place
        for index in row:
            for branch, response in enumerate(items[index].responses):
                for place, (token, on) in enumerate(zip(response.token_ids, response.scored, strict=True)):
                    position = len(items[index].prompt_ids) + place
                    if on and position > 0:
                        before = [k for k, (i, b, p) in enumerate(labels) if i == index and b in (None, branch) and p == position - 1]
                        assert len(before) == 1
                        targets.append((number * width + before[0], int(token), index, branch))
    starts = dict(zip(batch.example_ids.tolist(), np.cumsum([0] + [len(items[i].responses) for i in batch.example_ids])[:-1], strict=True))
    expected = [(at, token, int(starts[index]) + branch) for at, token, index, branch in targets]
    found = list(zip(batch.score_at.tolist(), batch.target_ids.tolist(), batch.target_owner.tolist(), strict=True))
    assert found == expected
    assert batch.token_count == sum(item.length for item in items)
