"""A reference that follows the policy, held to NumPy: copies and adapters, soft and hard, whatever the dtypes."""

import numpy as np
import pytest

from paddlealign.models.decoder import Decoder
from paddlealign.models.lora import attach, fill, first_values
from paddlealign.models.other_adapter import worn, zero_adapter
from paddlealign.models.parameters import LoraSettings
from paddlealign.models.weights import load_model
from paddlealign.parallel.sharding import unsharded
from paddlealign.training.moving_reference import MovingReference, follow
from paddlealign.training.objective import sft_objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.step import accumulate_gradients, apply_gradients
from tests.small_runs import FLOAT32, MODEL, micro_batches

SETTINGS = LoraSettings(4, 8.0, False, 0.0, ("q_proj", "down_proj"))
STEPS, EVERY = 7, 2  # three syncs, and a step after the last


def policy_and_reference(lora: bool, share: float, dtype: str = "float32") -> tuple[Decoder, MovingReference]:
    """Other values in the reference than in the policy, so that a mean differs from both."""
    policy = load_model(MODEL, "float32")
    rng = np.random.default_rng(2)
    if lora:
        attach(policy, SETTINGS, "base")
        fill(policy, first_values(policy, 1))
        other = zero_adapter(policy, SETTINGS, "base")
        with worn(policy, other):
            fill(policy, lambda name: rng.normal(0, 0.1, policy.trained_shapes()[name]).astype("float32"))
        return policy, MovingReference(EVERY, share, policy, unsharded(), other)
    copy = load_model(MODEL, dtype)
    for parameter in copy.parameters():
        parameter.set_value((parameter.astype("float32") * 1.5).astype(dtype))
    return policy, MovingReference(EVERY, share, copy, unsharded())


def values(model: Decoder) -> dict[str, np.ndarray]:
    return {name: parameter.astype("float32").numpy().astype("float64") for name, parameter in model.trained()}


def of_reference(moving: MovingReference) -> dict[str, np.ndarray]:
    with moving.standing():
        return values(moving.model)


@pytest.mark.parametrize("lora", [False, True], ids=["copy", "adapter"])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_three_syncs_are_numpys(lora: bool, share: float):
    policy, moving = policy_and_reference(lora, share)
    optimizer = make_optimizer(policy.trained(), 0.9, 0.99, 1e-8, 0.01)
    wanted, first = of_reference(moving), of_reference(moving)
    for step in range(1, STEPS + 1):
        accumulate_gradients(policy, micro_batches(), sft_objective(), FLOAT32, recompute=False)
        apply_gradients(policy, optimizer, FLOAT32, 1e-2, 1.0)
        trained = values(policy)
        follow(moving, policy, step)
        if step % EVERY == 0:
            wanted = {name: share * trained[name] + (1.0 - share) * wanted[name] for name in wanted}
        found = of_reference(moving)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-7, err_msg=f"{name}, step {step}")
        assert all(np.array_equal(value, trained[name]) for name, value in values(policy).items())
        if share == 1.0 and step % EVERY == 0:
            assert all(np.array_equal(found[name], trained[name]) for name in found)
    assert all(np.abs(found[name] - first[name]).max() > 1e-3 for name in first)
    assert any(np.abs(found[name] - trained[name]).max() > 1e-4 for name in first)


def test_a_copy_in_half_precision_keeps_its_dtype_and_is_rounded_once():
    policy, moving = policy_and_reference(lora=False, share=0.3, dtype="bfloat16")
    before, trained = of_reference(moving), values(policy)
    follow(moving, policy, EVERY)
    assert {str(parameter.dtype) for parameter in moving.model.parameters()} == {"paddle.bfloat16"}
    for name, found in of_reference(moving).items():
        mean = 0.3 * trained[name] + 0.7 * before[name]
        assert np.abs(found - mean).max() <= 2.0**-8 * np.abs(mean).max(), name
