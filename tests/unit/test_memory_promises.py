"""What a step promises of memory: the optimizer works in place, gradients are let go, and one micro-batch is alive at a time."""

import gc

import numpy as np
import paddle
import pytest

from paddlealign.models.config import parse_config
from paddlealign.models.decoder import Decoder
from paddlealign.objectives.pairs import Coefficients
from paddlealign.training.objective import preference_objective
from paddlealign.training.optimizer import optimizer_state
from paddlealign.training.reference import table_reference
from paddlealign.training.step import accumulate_gradients, apply_gradients
from tests.small_runs import FLOAT32, examples, make_batch, optimizer_of

CORE = paddle.base.core
SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 176, "vocab_size": 256}
OBJECTIVE = preference_objective(table_reference(np.full((6, 2), -30.0, "float32")), {"sigmoid": 1.0}, Coefficients())


def small() -> Decoder:
    policy = Decoder(parse_config({"model_type": "llama", **SHAPE}, "small"))
    for parameter in policy.parameters():
        parameter.set_value(paddle.normal(0.0, 0.02, parameter.shape))
    return policy


def places(tensors: dict[str, paddle.Tensor]) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in tensors.items()}


def test_the_optimizer_writes_where_weights_and_moments_lie_and_gradients_are_let_go():
    policy = small()
    optimizer = optimizer_of(policy)
    batches = [make_batch(examples(2), [[number]], 0) for number in range(2)]
    named = dict(policy.named_parameters())
    values = {name: parameter.numpy().copy() for name, parameter in named.items()}
    held = [places(named), places(optimizer_state(optimizer, named.items()))]
    for _ in range(2):
        accumulate_gradients(policy, batches, OBJECTIVE, FLOAT32, False)
        apply_gradients(policy, optimizer, FLOAT32, 1e-3, 1.0)
        assert [places(named), places(optimizer_state(optimizer, named.items()))] == held
        assert all(parameter.grad is None for parameter in named.values())
    assert all((parameter.numpy() != values[name]).any() for name, parameter in named.items())


@pytest.mark.parametrize("recompute", [False, True])
def test_more_micro_batches_take_no_more_memory(recompute: bool):
    """The highest moment by Paddle's own count of tensors, above what was there before the step."""
    peaks = []
    for count in (2, 6):
        policy = small()
        batches = [make_batch(examples(2) * 4, [[0], [1], [2], [3]], 0)] * count
        gc.collect()
        before = CORE.host_memory_stat_current_value("Allocated", 0)
        CORE.host_memory_stat_reset_peak_value("Allocated", 0)
        accumulate_gradients(policy, batches, OBJECTIVE, FLOAT32, recompute)
        peaks.append(CORE.host_memory_stat_peak_value("Allocated", 0) - before)
        left = CORE.host_memory_stat_current_value("Allocated", 0) - before
        gradients = sum(parameter.size for parameter in policy.parameters()) * 4
        assert left == pytest.approx(gradients, rel=0.02)  # and nothing of a micro-batch
        del policy
    assert peaks[1] == pytest.approx(peaks[0], rel=0.01)
