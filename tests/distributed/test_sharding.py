"""Who owns which parameter, and the sharded step on real ranks against the unsharded one: two shards of two replicas each."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddlealign.parallel.sharding import owners_of
from tests.distributed.launching import run_ranks
from tests.distributed.ranks_sharding import LARGEST_NORM, RANKS, SHAPES, STEPS

Results = list[dict[str, np.ndarray]]
KINDS = ("stage 1", "stage 2")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each rank found, in their order."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(Path(__file__).with_name("ranks_sharding.py"), RANKS, RANKS, 2, folder, timeout=120)
    return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(RANKS)]


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=40), st.integers(1, 9))
def test_the_shares_are_balanced_and_whole(sizes: list[int], ranks: int):
    named = {f"p{place}": size for place, size in enumerate(sizes)}
    if len(sizes) < ranks:
        with pytest.raises(ValueError, match=f"{len(sizes)} parameters are too few for {ranks} ranks"):
            owners_of(named, ranks)
        return
    owners = owners_of(named, ranks)
    loads = [sum(size for name, size in named.items() if owners[name] == rank) for rank in range(ranks)]
    assert owners.keys() == named.keys() and set(owners.values()) == set(range(ranks))
    assert max(loads) - min(loads) <= max(sizes)
    first = f"p{len(sizes) - 1}"
    assert owners_of(named, ranks, first)[first] == 0


def test_the_owners_of_a_known_list():
    assert owners_of(dict(zip("abcde", [3, 9, 3, 5, 1], strict=True)), 2) == {"b": 0, "d": 1, "a": 1, "c": 1, "e": 0}
    assert owners_of(dict.fromkeys("abcd", 2), 2) == {"a": 0, "b": 1, "c": 0, "d": 1}
    assert owners_of({"a": 7}, 1) == {"a": 0}


def test_a_7b_model_on_eight_ranks_is_within_a_tenth_of_even():
    layer = [4096 * 4096] * 4 + [4096 * 11008] * 3 + [4096] * 2
    sizes = {str(place): size for place, size in enumerate([32000 * 4096] + layer * 32 + [4096, 32000 * 4096])}
    owners = owners_of(sizes, 8, first="0")
    loads = [sum(size for name, size in sizes.items() if owners[name] == rank) for rank in range(8)]
    assert max(loads) < 1.1 * sum(sizes.values()) / 8


@pytest.mark.parametrize("kind", KINDS)
def test_the_sharded_step_is_the_unsharded_one(ranks: Results, kind: str):
    clipped = 0
    for rank in ranks:
        for step in range(STEPS):
            norm = rank[f"unsharded: {step} norm"]
            clipped += norm > LARGEST_NORM
            np.testing.assert_allclose(rank[f"{kind}: {step} norm"], norm, rtol=1e-6)
            for name in SHAPES:
                wanted = rank[f"unsharded: {step} {name}"]
                assert np.abs(rank[f"{kind}: {step} {name}"] - wanted).max() <= 1e-6 * np.abs(wanted).max()
    assert clipped > 0


@pytest.mark.parametrize("kind", KINDS)
def test_all_ranks_have_the_same_bits(ranks: Results, kind: str):
    for step in range(STEPS):
        for name in SHAPES:
            assert {rank[f"{kind}: {step} {name}"].tobytes() for rank in ranks} == {ranks[0][f"{kind}: {step} {name}"].tobytes()}


@pytest.mark.parametrize("kind", KINDS)
def test_each_rank_keeps_states_of_its_own_parameters_only(ranks: Results, kind: str):
    owned = [set(rank[f"{kind}: owned"].tolist()) for rank in ranks]
    assert owned[0] | owned[1] == set(SHAPES)
    assert not owned[0] & owned[1]
    assert owned[2:] == owned[:2]
    for rank, names in zip(ranks, owned, strict=True):
        assert rank[f"{kind}: elements of moments"] == 2 * sum(np.prod(SHAPES[name]) for name in names)
        assert set(rank[f"{kind}: with gradients"].tolist()) == (set(SHAPES) if kind == "stage 1" else names)
