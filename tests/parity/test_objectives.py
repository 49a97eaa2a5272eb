"""Objectives against float64 NumPy, and against values that can be worked out on paper."""

import math

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlealign.objectives.preference import dpo_loss
from paddlealign.objectives.response import response_logps
from paddlealign.objectives.sft import sft_loss

LOGPS = st.lists(st.tuples(*[st.floats(-300, 0, width=32)] * 4), min_size=1, max_size=6)


def oracle(policy: np.ndarray, reference: np.ndarray, beta: float, smoothing: float) -> tuple[float, np.ndarray]:
    """Loss and its gradient with respect to the policy's log-probs, float64."""
    rewards = beta * (policy - reference).reshape(-1, 2)
    margin = rewards[:, 0] - rewards[:, 1]
    loss = ((1 - smoothing) * np.logaddexp(0, -margin) + smoothing * np.logaddexp(0, margin)).sum()
    # d/dm: -(1 - e) sigmoid(-m) + e sigmoid(m)
    slope = -(1 - smoothing) * np.exp(-np.logaddexp(0, margin)) + smoothing * np.exp(-np.logaddexp(0, -margin))
    return loss, (beta * np.stack([slope, -slope], 1)).reshape(-1)


def run(policy: np.ndarray, reference: np.ndarray, beta: float, smoothing: float):
    tensor = paddle.to_tensor(policy.astype("float32"), stop_gradient=False)
    sums = dpo_loss(tensor, paddle.to_tensor(reference.astype("float32")), beta, smoothing)
    sums.loss.backward()
    return sums, tensor.grad.numpy()


@settings(deadline=None, max_examples=60)
@given(rows=LOGPS, beta=st.sampled_from([0.01, 0.1, 0.5]), smoothing=st.sampled_from([0.0, 0.1, 0.49]))
def test_dpo_equals_the_oracle(rows: list, beta: float, smoothing: float):
    table = np.array(rows, dtype="float32").astype("float64")
    policy, reference = table[:, :2].reshape(-1), table[:, 2:].reshape(-1)
    sums, gradient = run(policy, reference, beta, smoothing)
    loss, slope = oracle(policy, reference, beta, smoothing)
    assert float(sums.loss) == pytest.approx(loss, rel=1e-5, abs=1e-5)
    assert np.abs(gradient - slope).max() <= 1e-5


@settings(deadline=None, max_examples=30)
@given(rows=LOGPS, shift=st.floats(-50, 50, width=32))
def test_only_differences_count(rows: list, shift: float):
    """Adding one number to both answers' policy log-probs changes nothing; swapping the answers mirrors the margin."""
    table = np.array(rows, dtype="float64")
    policy, reference = table[:, :2].reshape(-1), table[:, 2:].reshape(-1)
    plain, _ = run(policy, reference, 0.1, 0.0)
    moved, _ = run(policy + shift, reference, 0.1, 0.0)
    swapped, _ = run(policy.reshape(-1, 2)[:, ::-1].reshape(-1), reference.reshape(-1, 2)[:, ::-1].reshape(-1), 0.1, 0.0)
    assert float(moved.loss) == pytest.approx(float(plain.loss), rel=1e-4, abs=1e-4)
    assert float(swapped.metrics["rewards/margins"]) == pytest.approx(-float(plain.metrics["rewards/margins"]), rel=1e-4, abs=1e-4)


def test_policy_equal_to_reference_gives_ln_2():
    logps = np.array([-3.0, -4.0, -50.0, -7.0])
    sums, _ = run(logps, logps, 0.1, 0.0)
    assert float(sums.loss) == pytest.approx(2 * math.log(2), rel=1e-6)
    assert float(sums.metrics["rewards/margins"]) == 0.0
    assert float(sums.metrics["rewards/accuracies"]) == 0.0


def test_dpo_on_paper():
    """One pair, beta 0.5, log-ratios +2 and -2: rewards +1 and -1, margin 2, loss log(1 + e^-2) = 0.126928."""
    sums, gradient = run(np.array([-1.0, -5.0]), np.array([-3.0, -3.0]), 0.5, 0.0)
    values = {name: float(value) for name, value in sums.metrics.items()}
    assert float(sums.loss) == pytest.approx(0.126928, abs=1e-6)
    assert values == {
        "rewards/chosen": 1.0,
        "rewards/rejected": -1.0,
        "rewards/margins": 2.0,
        "rewards/accuracies": 1.0,
        "logps/chosen": -1.0,
        "logps/rejected": -5.0,
    }
    # d loss / d logp_chosen = -beta sigmoid(-2) = -0.5 * 0.119203
    assert gradient == pytest.approx([-0.0596015, 0.0596015], abs=1e-6)


def test_dpo_keeps_precision_at_large_margins():
    """log sigmoid(-1000) is -1000, not minus infinity, and its gradient is 1."""
    sums, gradient = run(np.array([-1000.0, 0.0]), np.array([0.0, 0.0]), 1.0, 0.0)
    assert float(sums.loss) == pytest.approx(1000.0)
    assert gradient == pytest.approx([-1.0, 1.0])


def test_response_logps_are_segment_sums():
    tokens = paddle.to_tensor([-1.0, -2.0, -4.0, -8.0], stop_gradient=False)
    sums = response_logps(tokens, paddle.to_tensor([0, 2, 0, 2]), 4)
    assert sums.tolist() == [-5.0, 0.0, -10.0, 0.0]
    (sums * paddle.to_tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    assert tokens.grad.tolist() == [1.0, 100.0, 1.0, 100.0]


def test_sft_sums_over_tokens():
    sums = sft_loss(paddle.to_tensor([-1.0, -2.5]), paddle.to_tensor([True, False]))
    assert (float(sums.loss), float(sums.metrics["accuracy"])) == (3.5, 1.0)
