"""AdamW, schedules and clipping against NumPy and against values worked out on paper."""

import math

import numpy as np
import paddle
import pytest
from paddle import nn

from paddlealign.training import optimizer as optimizer_module
from paddlealign.training.optimizer import (
    clip_gradients,
    is_decayed,
    learning_rate_at,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
)


class Small(nn.Layer):
    """A weight that is decayed and three that are not."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        rng = np.random.default_rng(0)
        for parameter in self.parameters():
            parameter.set_value(rng.standard_normal(parameter.shape).astype("float32"))


def take_steps(model: Small, optimizer: paddle.optimizer.AdamW, first: int, count: int) -> None:
    """Steps whose gradients depend on the step's number only."""
    for step in range(first, first + count):
        rng = np.random.default_rng(step)
        for parameter in model.parameters():
            parameter.grad = paddle.to_tensor(rng.standard_normal(parameter.shape).astype("float32"))
        optimizer.set_lr(0.01 * (step + 1))
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)


def test_adamw_equals_numpy():
    model = Small()
    names = [name for name, _ in model.named_parameters()]
    values = {name: parameter.numpy().astype("float64") for name, parameter in model.named_parameters()}
    first = {name: np.zeros_like(value) for name, value in values.items()}
    second = {name: np.zeros_like(value) for name, value in values.items()}
    take_steps(model, make_optimizer(list(model.named_parameters()), 0.9, 0.95, 1e-8, 0.1), 0, 5)
    for step in range(5):
        rng = np.random.default_rng(step)
        rate = 0.01 * (step + 1)
        for name in names:
            gradient = rng.standard_normal(values[name].shape).astype("float32").astype("float64")
            if name == "proj.weight":
                values[name] *= 1 - rate * 0.1
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.95 * second[name] + 0.05 * gradient**2
            mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.95 ** (step + 1))
            values[name] -= rate * mean / (np.sqrt(square) + 1e-8)
    for name, parameter in model.named_parameters():
        assert np.abs(parameter.numpy() - values[name]).max() <= 1e-6, name


def test_the_state_goes_out_and_in_bit_by_bit():
    straight = Small()
    optimizer = make_optimizer(list(straight.named_parameters()), 0.9, 0.95, 1e-8, 0.1)
    take_steps(straight, optimizer, 0, 3)
    state = {name: tensor.numpy().copy() for name, tensor in optimizer_state(optimizer, list(straight.named_parameters())).items()}
    middle = {name: parameter.numpy().copy() for name, parameter in straight.named_parameters()}
    take_steps(straight, optimizer, 3, 3)

    resumed = Small()
    for name, parameter in resumed.named_parameters():
        parameter.set_value(middle[name])
    fresh = make_optimizer(list(resumed.named_parameters()), 0.9, 0.95, 1e-8, 0.1)
    load_optimizer_state(fresh, list(resumed.named_parameters()), state.__getitem__)
    take_steps(resumed, fresh, 3, 3)
    for (name, left), right in zip(straight.named_parameters(), resumed.parameters(), strict=True):
        assert (left.numpy() == right.numpy()).all(), name
    assert set(state) == {"beta1_pow", "beta2_pow"} | {f"{name}.{moment}" for name in middle for moment in ("moment1", "moment2")}


def test_a_state_of_other_weights_is_refused():
    model = Small()
    optimizer = make_optimizer(list(model.named_parameters()), 0.9, 0.95, 1e-8, 0.1)
    with pytest.raises(KeyError, match=r"proj\.weight"):
        load_optimizer_state(
            optimizer, list(model.named_parameters()), {"beta1_pow": np.ones(1, "float32"), "beta2_pow": np.ones(1, "float32")}.__getitem__
        )


@pytest.mark.parametrize(
    "name, decayed",
    [
        ("model.layers.0.self_attn.q_proj.weight", True),
        ("model.embed_tokens.weight", True),
        ("lm_head.weight", True),
        ("model.layers.0.self_attn.q_proj.bias", False),
        ("model.layers.0.input_layernorm.weight", False),
        ("model.layers.0.post_attention_layernorm.weight", False),
        ("model.norm.weight", False),
    ],
)
def test_norms_and_biases_are_not_decayed(name: str, decayed: bool):
    assert is_decayed(name) is decayed


def test_schedules_on_paper():
    """Ten steps, two of warm-up, peak 1: the rate of step 6 is half way down."""
    rates = {kind: [learning_rate_at(step, 10, 1.0, 2, kind) for step in range(10)] for kind in ("linear", "cosine", "constant")}
    assert rates["linear"] == pytest.approx([0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    assert rates["constant"] == [0, 0.5] + [1.0] * 8
    assert rates["cosine"][2:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8)])
    assert learning_rate_at(0, 5, 3e-4, 0, "linear") == 3e-4
    # verl's cosine with min_lr_ratio 0.1: 0.55 + 0.45 cos
    lowest = [learning_rate_at(step, 10, 2.0, 2, "cosine", lowest=0.2) for step in range(2, 11)]
    assert lowest == pytest.approx([2.0 * (0.55 + 0.45 * math.cos(math.pi * i / 8)) for i in range(9)])


@pytest.mark.parametrize("on_arrays, piece", [(True, 1 << 20), (True, 3), (False, 1)])
def test_clipping_scales_the_whole_gradient(monkeypatch: pytest.MonkeyPatch, on_arrays: bool, piece: int):
    monkeypatch.setattr(optimizer_module, "_PIECE", piece)
    if not on_arrays:  # as on other devices
        monkeypatch.setattr(optimizer_module, "are_arrays", lambda *tensors: False)
    model = Small()
    for parameter in model.parameters():
        parameter.grad = paddle.full(parameter.shape, 2.0)
    count = sum(parameter.size for parameter in model.parameters())
    assert clip_gradients(model.named_parameters(), 0) == pytest.approx(2 * math.sqrt(count))
    assert float(model.proj.weight.grad[0, 0]) == 2.0
    assert clip_gradients(model.named_parameters(), 100.0) == pytest.approx(2 * math.sqrt(count))
    assert float(model.proj.weight.grad[0, 0]) == 2.0
    clip_gradients(model.named_parameters(), 1.0)
    assert clip_gradients(model.named_parameters(), 0) == pytest.approx(1.0, rel=1e-6)
    for parameter in model.parameters():
        assert np.allclose(parameter.grad.numpy(), 1 / math.sqrt(count))


def test_a_norm_that_is_not_finite_scales_nothing():
    model = Small()
    for parameter in model.parameters():
        parameter.grad = paddle.ones(parameter.shape)
    model.proj.bias.grad = paddle.to_tensor([math.nan, 1.0])
    assert math.isnan(clip_gradients(model.named_parameters(), 1.0))
    assert float(model.proj.weight.grad[0, 0]) == 1.0
