"""Objectives against float64 NumPy, against TRL's and eric-mitchell's figures, and against values that can be worked out on paper."""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlealign.arguments.losses import LOSSES, UNPAIRED_LOSSES
from paddlealign.arguments.objective_fields import ObjectiveArguments
from paddlealign.objectives.pairs import Coefficients
from paddlealign.objectives.policy_alone import log1mexp
from paddlealign.objectives.preference import PREFERENCE_LOSSES
from paddlealign.objectives.response import response_lengths, response_logps, verbose_weights
from paddlealign.objectives.sft import sft_loss
from scripts import objectives_page
from tests.preference_oracle import (
    GOLDEN,
    ORACLES,
    difference,
    draw,
    from_oracle,
    from_trl,
    kto_from_oracle,
    kto_from_trl,
    oracle,
    our_kto,
    ours,
    reads,
)

PAGE = Path(__file__).parents[2] / "docs" / "objectives.md"
OF_DIFFERENCES = [name for name, loss in LOSSES.items() if loss.compares == "difference"]


def test_every_loss_has_its_facts_its_function_and_an_oracle():
    assert list(LOSSES) == list(PREFERENCE_LOSSES) == list(ORACLES)
    keys = {field.name: field.default for field in fields(ObjectiveArguments)}
    for field in fields(Coefficients):
        assert keys[field.name] == field.default
    assert {key for loss in LOSSES.values() for key in loss.reads} <= {field.name for field in fields(Coefficients)}
    assert list(UNPAIRED_LOSSES) == ["kto"] and not UNPAIRED_LOSSES.keys() & LOSSES.keys()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_a_loss_equals_its_oracle_in_value_and_gradient(name: str, seed: int):
    assert from_oracle(name, seed) <= 1e-5


@pytest.mark.parametrize("name", OF_DIFFERENCES)
@pytest.mark.parametrize("kind", [("forward_kl", 0.5), ("js_divergence", 0.5), ("alpha_divergence", 0.3), ("alpha_divergence", 1.0)])
def test_a_divergence_equals_its_oracle(name: str, kind: tuple[str, float]):
    tokens, reference = draw(5, 11, spread=1.0)
    numbers = {**reads(name), "f_divergence_type": kind[0], "f_alpha_divergence_coef": kind[1]}
    loss, gradient, _ = ours(tokens, reference, {name: 1.0}, numbers)
    wanted, slope = oracle(tokens, reference, {name: 1.0}, numbers)
    assert difference(loss, wanted) <= 1e-5
    assert difference(gradient, slope) <= 1e-5


@pytest.mark.parametrize(
    ("weights", "numbers", "ld_alpha"),
    [
        ({"sigmoid": 0.7, "sft": 1.5}, {"beta": 0.3}, 1.0),
        ({"ipo": 1.0}, {"beta": 0.3, "ipo_average": "sum"}, 1.0),
        ({"aot_unpaired": 0.2, "kto_pair": 0.5, "sft_norm": 1.0, "aot": 0.1}, {"beta": 0.3}, 1.0),
        ({"sigmoid": 1.0}, {"beta": 0.3}, 0.25),
        ({"bco_pair": 1.0, "sft": 0.1}, {"beta": 0.3}, 0.0),
    ],
)
def test_mixtures_and_ld_dpo_equal_their_oracles(weights: dict[str, float], numbers: dict[str, Any], ld_alpha: float):
    tokens, reference = draw(6, 21)
    loss, gradient, _ = ours(tokens, reference, weights, numbers, ld_alpha)
    wanted, slope = oracle(tokens, reference, weights, numbers, ld_alpha)
    assert difference(loss, wanted) <= 1e-5
    assert difference(gradient, slope) <= 1e-5


def test_weighted_pairs_equal_their_oracle():
    """The chosen answers' cross-entropy is not weighed."""
    tokens, reference = draw(6, 51)
    collisions = [[0.7 * side - 0.1 for side in pair] for pair in tokens]
    weights, numbers = {"sigmoid": 0.7, "kto_pair": 0.5, "sft": 0.2, "sft_norm": 0.1}, {"beta": 0.3}
    loss, gradient, _ = ours(tokens, reference, weights, numbers, 0.5, collisions=collisions)
    wanted, slope = oracle(tokens, reference, weights, numbers, 0.5, collisions)
    assert difference(loss, wanted) <= 1e-5 and difference(gradient, slope) <= 1e-5


@pytest.mark.parametrize("name", OF_DIFFERENCES)
def test_without_a_reference_the_log_probs_stand_for_the_ratios(name: str):
    tokens, _ = draw(5, 31)
    loss, gradient, _ = ours(tokens, None, {name: 1.0}, reads(name))
    wanted, slope = oracle(tokens, None, {name: 1.0}, reads(name))
    assert difference(loss, wanted) <= 1e-5 and difference(gradient, slope) <= 1e-5


@pytest.mark.parametrize("name", GOLDEN["trl"])
def test_trl_has_the_same_loss_and_gradient(name: str):
    assert from_trl(name) <= 1e-5


def test_the_page_tells_what_is_in_the_code_and_what_was_measured():
    page = PAGE.read_text("utf-8")
    assert objectives_page.faults(page) == []
    told = page.replace("`max(0, 1 - beta d)`", "`max(0, 2 - beta d)`")
    assert told != page and objectives_page.faults(told) == ["hinge: the page does not say what the code does"]
    row = next(line for line in page.splitlines() if line.startswith("| `ipo` |"))
    better = "| 1e-09 |".join([row.rsplit(" |", 3)[0].rsplit("| ", 1)[0].rstrip(), row.rsplit("| ", 1)[1]])
    assert any("ipo" in fault for fault in objectives_page.faults(page.replace(row, better)))


@pytest.mark.parametrize("name", GOLDEN["eric-mitchell"])
def test_the_reference_implementation_has_the_same_losses_and_rewards(name: str):
    case = GOLDEN["eric-mitchell"][name]
    reference = None if case["keys"].get("reference_free") else np.array(GOLDEN["reference"])
    weights = {"ipo" if case["keys"].get("ipo") else "sigmoid": 1.0}
    numbers = {key: case["keys"][key] for key in ("beta", "label_smoothing") if key in case["keys"]} | {"ipo_average": "sum"}
    for index, pair in enumerate(GOLDEN["tokens"]):
        tokens = [[np.array(side) for side in pair]]
        loss, _, sums = ours(tokens, None if reference is None else reference[index : index + 1], weights, numbers)
        assert loss == pytest.approx(case["losses"][index], rel=1e-6, abs=1e-6)
        if reference is not None:  # its rewards are against the reference even where the loss is not
            assert sums["pairs"]["rewards/chosen"] == pytest.approx(case["chosen"][index], rel=1e-5, abs=1e-6)
            assert sums["pairs"]["rewards/rejected"] == pytest.approx(case["rejected"][index], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", GOLDEN["trl kto"])
def test_trl_has_the_same_kto(name: str):
    assert kto_from_trl(name) <= 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_kto_equals_its_oracle(seed: int):
    assert kto_from_oracle(seed) <= 1e-5


def test_kto_on_paper():
    """Two rows, u = 2 and -1, a KL of 1 from mismatched answers: sigmoid(-0.5) and sigmoid(-1), and half of each gradient."""
    tokens = [[np.array([-1.0]), np.array([-1.0])], [np.array([-4.0]), np.array([-2.0])]]
    labels, numbers = np.array([True, False]), {"beta": 0.5, "desirable_weight": 1.0, "undesirable_weight": 2.0}
    loss, gradient, sums = our_kto(tokens, np.array([[-3.0, -2.0], [-3.0, -3.0]]), labels, numbers)
    assert loss == pytest.approx((0.377541 + 2 * 0.268941) / 2, rel=1e-5)
    assert gradient == pytest.approx([-0.5 * 0.235004 / 2, 0, 2 * 0.5 * 0.196612 / 2, 0], rel=1e-5)
    assert (sums["examples"]["kl"], sums["examples"]["rewards/accuracies"]) == (2.0, 2.0)  # sums over the two rows


# ---- what holds for every input


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), shift=st.floats(-20, 20, width=32, allow_subnormal=False), name=st.sampled_from(OF_DIFFERENCES))
def test_a_reference_that_adds_the_same_to_both_answers_changes_nothing(seed: int, shift: float, name: str):
    """True of every loss over the difference, under the reverse KL, but for those that divide by lengths."""
    tokens, reference = draw(3, seed)
    if name in ("sigmoid_norm", "ipo"):
        tokens = [[pair[0], np.resize(pair[1], len(pair[0]))] for pair in tokens]
    plain, moved = (ours(tokens, it, {name: 1.0}, reads(name)) for it in (reference, reference + shift))
    assert moved[0] == pytest.approx(plain[0], rel=1e-3, abs=1e-4)
    assert np.abs(moved[1] - plain[1]).max() <= 1e-3 * max(1.0, np.abs(plain[1]).max())


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), beta=st.floats(0.05, 1))
def test_half_smoothed_labels_have_no_direction(seed: int, beta: float):
    """With e = 1/2 swapping the answers changes nothing; with e = 0 it mirrors the margin: the losses differ by it."""
    tokens, reference = draw(3, seed)
    swapped, turned = [pair[::-1] for pair in tokens], reference[:, ::-1]
    even = [
        ours(it, ref, {"sigmoid": 1.0}, {"beta": beta, "label_smoothing": 0.5})[0] for it, ref in ((tokens, reference), (swapped, turned))
    ]
    assert even[0] == pytest.approx(even[1], rel=1e-5)
    plain, mirrored = (ours(it, ref, {"sigmoid": 1.0}, {"beta": beta}) for it, ref in ((tokens, reference), (swapped, turned)))
    margin = plain[2]["pairs"]["rewards/margins"] / 3
    assert mirrored[2]["pairs"]["rewards/margins"] / 3 == pytest.approx(-margin, rel=1e-4, abs=1e-5)
    assert mirrored[0] - plain[0] == pytest.approx(margin, rel=1e-3, abs=1e-4)  # -log s(-m) + log s(m) = m


AT_EQUALITY = {
    "sigmoid": math.log(2), "sigmoid_norm": math.log(2), "robust": math.log(2), "hinge": 1.0, "aot": math.log(2), "dpop": math.log(2),
    "nca_pair": 2 * math.log(2), "bco_pair": 2 * math.log(2), "apo_zero": 1.0, "apo_down": 1.0, "kto_pair": 0.5,
    "ipo": (0.5 / 0.3) ** 2, "sppo_hard": 2 * (0.5 / 0.3) ** 2, "discopop": 0.5 * math.log(2) + 0.5,
    "exo_pair": 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), "aot_unpaired": math.log(2),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_EQUALITY)
def test_where_policy_and_reference_are_one(name: str):
    assert AT_EQUALITY.keys() == {name for name, loss in LOSSES.items() if loss.compares != "policy"}
    tokens, _ = draw(4, 41)
    reference = np.array([[side.sum() for side in pair] for pair in tokens])
    loss, _, sums = ours(tokens, reference, {name: 1.0}, reads(name))
    assert loss == pytest.approx(AT_EQUALITY[name], rel=1e-5)
    assert abs(sums["pairs"]["rewards/margins"]) <= 1e-5


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_limits_at_small_beta(seed: int):
    """As beta goes to 0, DPO's loss goes to ln 2 and its gradient to -beta / 2 for the chosen tokens; ipo's minimum goes to infinity."""
    tokens, reference = draw(3, seed)
    loss, gradient, _ = ours(tokens, reference, {"sigmoid": 1.0}, {"beta": 1e-4})
    assert loss == pytest.approx(math.log(2), abs=1e-3)
    assert abs(gradient[: len(tokens[0][0])] / 1e-4 * 3 + 0.5).max() <= 1e-3
    assert ours(tokens, reference, {"ipo": 1.0}, {"beta": 1e-3})[0] == pytest.approx(500.0**2, rel=0.1)


# ---- on paper


def test_dpo_on_paper():
    """One pair, beta 0.5, log-ratios +2 and -2: rewards +1 and -1, margin 2, loss log(1 + e^-2) = 0.126928."""
    loss, gradient, sums = ours([[np.array([-1.0]), np.array([-5.0])]], np.array([[-3.0, -3.0]]), {"sigmoid": 1.0}, {"beta": 0.5})
    assert loss == pytest.approx(0.126928, abs=1e-6)
    assert {name: value for name, value in sums["pairs"].items() if name != "loss"} == {
        "rewards/chosen": 1.0,
        "rewards/rejected": -1.0,
        "rewards/margins": 2.0,
        "rewards/accuracies": 1.0,
        "logps/chosen": -1.0,
        "logps/rejected": -5.0,
    }
    # d loss / d logp_chosen = -beta sigmoid(-2) = -0.5 * 0.119203
    assert gradient == pytest.approx([-0.0596015, 0.0596015], abs=1e-6)


def test_a_tie_is_not_ranked_right():
    """Two pairs with log-ratios of +1 each, and of +1 and -1: only the second one's chosen answer is preferred."""
    tokens = [[np.array([-1.0]), np.array([-5.0])], [np.array([-1.0]), np.array([-5.0])]]
    sums = ours(tokens, np.array([[-2.0, -6.0], [-2.0, -4.0]]), {"sigmoid": 1.0}, {"beta": 0.5})[2]
    assert (sums["pairs"]["rewards/accuracies"], sums["pairs"]["rewards/margins"]) == (1.0, 1.0)


@pytest.mark.parametrize("name", OF_DIFFERENCES)
def test_losses_stay_finite_at_large_margins(name: str):
    """-log sigmoid(-1000) is 1000 and its gradient 1; nothing overflows where a loss is finite in truth."""
    for sign in (1, -1):
        tokens, reference = [[np.array([-1000.0]), np.array([-1000.0])]], np.array([[-1000.0 - 500 * sign, -1000.0 + 500 * sign]])
        loss, gradient, _ = ours(tokens, reference, {name: 1.0}, {**reads(name), "beta": 1.0})
        assert np.isfinite(loss) and np.isfinite(gradient).all()
    loss, gradient, _ = ours([[np.array([-1000.0]), np.array([0.0])]], np.zeros((1, 2)), {"sigmoid": 1.0}, {"beta": 1.0})
    assert loss == pytest.approx(1000.0) and gradient == pytest.approx([-1.0, 1.0])


def test_odds_of_a_certain_answer_are_bounded():
    x = np.array([-1e-6, -1e-3, -0.6, -0.7, -5, -60], "float32")
    found = paddle.to_tensor(x, stop_gradient=False)
    value = log1mexp(found)
    assert value.numpy() == pytest.approx(np.log(-np.expm1(x.astype("float64"))), rel=1e-5, abs=1e-25)
    value.sum().backward()
    assert found.grad.numpy() == pytest.approx(-np.exp(x.astype("float64")) / -np.expm1(x.astype("float64")), rel=1e-4)
    loss, gradient, _ = ours([[np.array([0.0]), np.array([-1.0])]], None, {"orpo": 1.0}, {})
    assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_rewards_of_losses_per_token():
    tokens = [[np.array([-1.0, -3.0]), np.array([-4.0])]]
    _, _, sums = ours(tokens, None, {"simpo": 1.0, "sft": 1.0}, {"beta": 0.5})
    assert (sums["pairs"]["rewards/chosen"], sums["pairs"]["rewards/rejected"]) == (-1.0, -2.0)
    assert (sums["pairs"]["logps/chosen"], sums["chosen tokens"]["nll_loss"]) == (-4.0, 4.0)


def test_rewards_are_the_first_losses():
    """With a reference at hand too, a loss that does not look at it has no reward that does."""
    tokens, reference = [[np.array([-1.0, -3.0]), np.array([-4.0])]], np.array([[-5.0, -1.0]])
    expected = {"simpo": (-1.0, -2.0), "cpo": (-2.0, -2.0), "orpo": (-2.0, -4.0), "sigmoid": (0.5, -1.5)}
    for name, rewards in expected.items():
        other = "hinge" if name == "sigmoid" else "sigmoid"
        _, _, sums = ours(tokens, reference, {name: 1.0, other: 1.0}, {"beta": 0.5})
        assert (sums["pairs"]["rewards/chosen"], sums["pairs"]["rewards/rejected"]) == rewards, name


def test_cross_entropies_and_logps_are_of_whole_answers_under_ld_dpo():
    tokens = [[np.array([-1.0, -3.0]), np.array([-4.0])]]
    _, _, sums = ours(tokens, None, {"sigmoid": 1.0, "sft": 1.0, "sft_norm": 1.0}, {"beta": 0.5}, 0.0)
    assert (sums["pairs"]["logps/chosen"], sums["chosen tokens"]["nll_loss"], sums["chosen tokens"]["loss"]) == (-4.0, 4.0, 4.0)
    assert sums["pairs"]["rewards/chosen"] == -0.5  # as the loss has it


def test_response_logps_are_segment_sums():
    tokens = paddle.to_tensor([-1.0, -2.0, -4.0, -8.0], stop_gradient=False)
    owner = paddle.to_tensor([0, 2, 0, 2])
    sums = response_logps(tokens, owner, 4)
    assert sums.tolist() == [-5.0, 0.0, -10.0, 0.0] and response_lengths(owner, 4).tolist() == [2.0, 0.0, 2.0, 0.0]
    (sums * paddle.to_tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    assert tokens.grad.tolist() == [1.0, 100.0, 1.0, 100.0]


def test_only_the_longer_answers_rest_is_verbose():
    owner = paddle.to_tensor([0, 0, 0, 1, 2, 3, 3])
    assert verbose_weights(owner, 4, 0.25).tolist() == [1.0, 0.25, 0.25, 1.0, 1.0, 1.0, 0.25]


def test_sft_sums_over_tokens():
    values = sft_loss(paddle.to_tensor([-1.0, -2.5]), paddle.to_tensor([True, False])).values
    assert {name: float(value) for name, value in values["tokens"].items()} == {"loss": 3.5, "accuracy": 1.0}
