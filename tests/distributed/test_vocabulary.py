"""Vocabulary-parallel log-probs on 2 and 4 real ranks against float64 NumPy."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.distributed.launching import run_ranks
from tests.distributed.ranks_vocabulary import CASES, HEADS, HIDDEN, TARGETS, Case, inputs_of

Array = np.ndarray
Results = list[dict[str, Array]]


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each rank found, in their order."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(Path(__file__).with_name("ranks_vocabulary.py"), request.param, request.param, folder, timeout=120)
    return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(request.param)]


def oracle(hidden: Array, head: Array, targets: Array) -> tuple[Array, Array]:
    """Log-probs of the targets and softmax, float64; logits as they are in bfloat16 where the inputs are of that dtype."""
    logits = hidden @ head.T
    if hidden.dtype == ml_dtypes.bfloat16:
        logits = (hidden.astype("float64") @ head.T.astype("float64")).astype(ml_dtypes.bfloat16).astype("float64")
    logits = logits - logits.max(-1, keepdims=True)
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return logits[np.arange(len(targets)), targets] - np.log(np.exp(logits).sum(-1)), softmax


def joined(ranks: Results, key: str, vocab_size: int) -> tuple[Array, Array]:
    """The head's gradient from its parts: of the tokens, and of the padding."""
    whole = np.concatenate([rank[key] for rank in ranks])
    return whole[:vocab_size], whole[vocab_size:]


def share(ours: Array, wanted: Array) -> float:
    """The largest difference, as a part of the largest figure."""
    return float(np.abs(ours - wanted).max() / max(1.0, np.abs(wanted).max()))


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(ranks: Results, name: str):
    case = CASES[name]
    hidden, head, targets, upstream = inputs_of(case)
    half = case.mode != "float32"
    kind = ml_dtypes.bfloat16 if half else np.float64
    wanted, softmax = oracle(hidden.astype(kind), head.astype(kind), targets)
    slope = upstream[:, None] * (np.eye(case.vocab_size)[targets] - softmax)
    # The log-probs are float32 from the logits on; the gradients' products are in the dtype of the case.
    tolerance = 2.0**-7 if half else 2e-6
    for rank in ranks:
        assert share(rank[f"{name}: logps"], wanted) < 2e-6
        assert share(rank[f"{name}: hidden"], slope @ head) < tolerance
        assert (rank[f"{name}: correct"] == (softmax[np.arange(TARGETS), targets] == softmax.max(-1))).all()
    gradient, of_padding = joined(ranks, f"{name}: head", case.vocab_size)
    assert share(gradient, slope.T @ hidden) < tolerance
    assert (of_padding == 0).all()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.mode != "autocast"])
def test_collisions(ranks: Results, name: str):
    """How likely two drawn tokens are the same, without the padding."""
    case = CASES[name]
    hidden, head, targets, _ = inputs_of(case)
    kind = ml_dtypes.bfloat16 if case.mode != "float32" else np.float64
    _, softmax = oracle(hidden.astype(kind), head.astype(kind), targets)
    for rank in ranks:
        assert share(rank[f"{name}: collisions"], np.log((softmax**2).sum(-1))) < 2e-6


@pytest.mark.parametrize("name", CASES)
def test_every_rank_has_the_same_bits(ranks: Results, name: str):
    for key in ("logps", "correct", "hidden", "collisions"):
        for rank in ranks[1:]:
            assert rank[f"{name}: {key}"].tobytes() == ranks[0][f"{name}: {key}"].tobytes()


@pytest.mark.parametrize("name", CASES)
def test_logits_are_not_sent_and_made_a_chunk_at_a_time(ranks: Results, name: str):
    case = CASES[name]
    width = -(-case.vocab_size // len(ranks))
    for rank in ranks:
        assert rank[f"{name}: sent"].tolist() == [str(shape) for shape in ([TARGETS], [2, TARGETS], [TARGETS, HIDDEN])]
        assert rank[f"{name}: rows of logits"] == min(TARGETS, max(1, case.chunk_elements // width))


@pytest.mark.parametrize(
    ("mode", "gradients", "multiplied"),
    [("float32", "float32", "float32"), ("bfloat16", "bfloat16", "bfloat16"), ("autocast", "float32", "bfloat16")],
)
def test_dtypes(ranks: Results, mode: str, gradients: str, multiplied: str):
    names = [name for name, case in CASES.items() if case.mode == mode]
    assert names
    for rank in ranks:
        for name in names:
            kinds = ["float32", "bool", gradients, gradients]
            assert rank[f"{name}: dtypes"].tolist() == [f"paddle.{kind}" for kind in kinds]
            assert rank[f"{name}: multiplied"].tolist() == [f"paddle.{multiplied}"]
            assert rank[f"{name}: mixed"].tolist() == []


def first_choices(ranks: Results, name: str) -> list[list[bool]]:
    """For each target, whether it is a first choice of each row; the same on every rank."""
    targets = range(len(HEADS[name][1]))
    found = [[rank[f"{name}, {target}: correct"].tolist() for target in targets] for rank in ranks]
    assert all(told == found[0] for told in found)
    return found[0]


def test_all_that_tie_at_the_top_are_first_choices_on_whatever_rank(ranks: Results):
    row_0, row_1 = zip(*first_choices(ranks, "ties"), strict=True)
    assert row_0 == (False, True, False, False, True, True)
    assert row_1 == (False, False, True, False, False, False)


def test_unlikely_tokens_and_large_logits_are_exact(ranks: Results):
    for rank in ranks:
        assert [rank[f"unlikely, {target}: logps"].tolist() for target in range(6)] == [[-500.0]] * 4 + [[0.0], [-500.0]]
        large = [rank[f"large, {target}: logps"].item() for target in range(6)]
        wanted = np.array([-6e4, -3e4, 0, -3e4, -3e4, 0]) - np.log(2)
        assert np.abs(large - wanted).max() <= np.spacing(np.float32(6e4))


def test_gathered_logits_are_in_order_and_without_padding(ranks: Results):
    parts = [np.arange(12, dtype="float32").reshape(2, 2, 3) + 100 * rank for rank in range(len(ranks))]
    for rank in ranks:
        assert rank["gathered"].dtype == np.float32
        assert np.array_equal(rank["gathered"], np.concatenate(parts, -1)[..., : 3 * len(ranks) - 2])


def test_the_targets_stand_at_the_edges_of_every_part():
    for parts in (2, 4):
        width = -(-21 // parts)
        targets = set(inputs_of(Case(21, True)).targets.tolist())
        assert {0, width - 1, width, 20} <= targets
