"""bfloat16 and float16 as a GPU would run them: which tensor is held in which dtype, and what that costs in accuracy."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import paddle
import pytest
from paddle import Tensor, nn

from paddlealign.models import attention
from paddlealign.models.attention import packed_attention
from paddlealign.models.incremental import RunningBatch
from paddlealign.models.lora import attach, fill, first_values
from paddlealign.models.parameters import LoraSettings
from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import load_model
from paddlealign.parallel.pipeline import LONE_CHAIN
from paddlealign.parallel.sharding import unsharded
from paddlealign.parallel.topology import SINGLE
from paddlealign.recipes.sampling import live_forward
from paddlealign.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from paddlealign.training.objective import sft_objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.precision import Precision, choose_precision
from paddlealign.training.reference import table_reference
from paddlealign.training.reference_cache import compute_logps
from paddlealign.training.score import run_head, run_layers
from paddlealign.training.step import accumulate_gradients, apply_gradients
from tests.half_precision import HalfKernels, install
from tests.small_runs import FLOAT32, GOLDEN, MODEL, dpo_objective, examples, gradients_of, micro_batches, optimizer_of, train

BF16_O2 = Precision("bfloat16", "O2", None)
BF16_O1 = Precision("bfloat16", "O1", None)
EPS = 2.0**-8  # half of bfloat16's spacing at 1


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> HalfKernels:
    return install(monkeypatch)


@pytest.fixture
def autocast(kernels: HalfKernels, monkeypatch: pytest.MonkeyPatch) -> HalfKernels:
    """``Precision.autocast`` as it would work on a GPU; on CPU Paddle's own does nothing."""

    def context(precision: Precision) -> AbstractContextManager:
        casts = precision.dtype != "float32" and precision.level == "O1"
        return kernels.autocast(getattr(paddle, precision.dtype)) if casts else nullcontext()

    monkeypatch.setattr(Precision, "autocast", context)
    return kernels


def assert_near(left: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> None:
    """Each tensor within a few roundings of bfloat16, by its L2 norm."""
    for name, gradient in exact.items():
        error = np.linalg.norm(left[name] - gradient) / np.linalg.norm(gradient)
        assert error <= 10 * EPS, f"{name}: {error:.1e}"


def dtypes(tensors: Sequence[Tensor]) -> set[paddle.dtype]:
    return {tensor.dtype for tensor in tensors}


def noting(apply: Callable[..., Tensor], seen: list[tuple[paddle.dtype, ...]]) -> Callable[..., Tensor]:
    """The same, and the dtypes noted."""

    def call(q: Tensor, k: Tensor, v: Tensor, *planned: Any) -> Tensor:
        out = apply(q, k, v, *planned)
        seen.append((q.dtype, k.dtype, v.dtype, out.dtype))
        return out

    return call


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[paddle.dtype, ...]]]:
    """The dtypes of every (q, k, v, output) that attention saw."""
    seen = []
    for kernel in (attention._BlockAttention, attention._CpuAttention):
        monkeypatch.setattr(kernel, "apply", noting(kernel.apply, seen))
    yield seen
    assert seen


def test_the_stand_ins_refuse_what_a_gpu_refuses(kernels: HalfKernels):
    half, single = paddle.ones([2, 2], "bfloat16"), paddle.ones([2, 2])
    with pytest.raises(TypeError, match="matrix product"):
        paddle.matmul(half, single)
    with pytest.raises(TypeError, match="matrix product"):
        nn.functional.linear(half, half, paddle.ones([2]))
    _ = half + single
    assert kernels.mixed == ["+"]


@pytest.mark.parametrize("name", ["llama2_gqa", "qwen2_tied", "mistral", "qwen3", "pythia"])
def test_o2_holds_everything_in_its_dtype(kernels: HalfKernels, attended: list, name: str):
    model = load_model(GOLDEN / name, "bfloat16")
    assert dtypes(model.parameters()) == {paddle.bfloat16}
    batch = micro_batches()[0]
    attend = packed_attention(batch.visible_until, batch.position_ids)
    assert model(paddle.to_tensor(batch.input_ids), paddle.to_tensor(batch.position_ids), attend).dtype == paddle.bfloat16
    assert run_head(model, batch, run_layers(model, batch)).token_logps.dtype == paddle.float32

    optimizer = optimizer_of(model)
    for recompute in (False, True):
        accumulate_gradients(model, micro_batches(), sft_objective(), BF16_O2, recompute)
        assert dtypes([parameter.grad for parameter in model.parameters()]) == {paddle.float32}
        apply_gradients(model, optimizer, BF16_O2, 1e-3, 1.0)
    assert dtypes(model.parameters()) == {paddle.bfloat16}
    assert kernels.outputs == {paddle.bfloat16}
    assert set(attended) == {(paddle.bfloat16,) * 4}
    assert kernels.mixed == []
    masters = optimizer._master_weights
    assert dtypes(list(masters.values())) == {paddle.float32}
    assert dtypes([*optimizer._accumulators["moment1"].values(), *optimizer._accumulators["moment2"].values()]) == {paddle.float32}
    for parameter in model.parameters():
        assert bool((masters[parameter.name].astype("bfloat16") == parameter).all())


@pytest.mark.parametrize("name", ["llama2_gqa", "pythia"])
def test_an_adapter_under_o2_is_held_as_the_weights_are(kernels: HalfKernels, attended: list, name: str):
    model = load_model(GOLDEN / name, "bfloat16")
    attach(model, LoraSettings(4, 8.0, False, 0.2, ("o_proj", "up_proj", "down_proj")), "base")
    fill(model, first_values(model, 1))
    parameters = [parameter for _, parameter in model.trained()]
    optimizer, before = make_optimizer(model.trained(), 0.9, 0.99, 1e-8, 0.01), [it.numpy().copy() for it in parameters]
    for recompute in (False, True):
        accumulate_gradients(model, micro_batches(), sft_objective(), BF16_O2, recompute)
        assert dtypes([parameter.grad for parameter in parameters]) == {paddle.float32}
        apply_gradients(model, optimizer, BF16_O2, 1e-3, 1.0)
    assert dtypes(model.parameters()) == {paddle.bfloat16} and kernels.outputs == {paddle.bfloat16} and kernels.mixed == []
    assert set(attended) == {(paddle.bfloat16,) * 4}
    assert dtypes(list(optimizer._master_weights.values())) == {paddle.float32}
    assert all((it.numpy() != old).any() for it, old in zip(parameters, before, strict=True))


def test_o2_learns_what_float32_learns(kernels: HalfKernels):
    narrow, wide = load_model(MODEL, "bfloat16"), load_model(MODEL, "float32")
    losses = train(narrow, optimizer_of(narrow), BF16_O2, 6)
    exact = train(wide, optimizer_of(wide), FLOAT32, 6)
    assert losses[-1] < losses[0] - 1
    assert losses == pytest.approx(exact, rel=4 * EPS)
    assert losses != exact


def test_o2_gradients_are_those_of_float32_within_rounding(kernels: HalfKernels):
    narrow, wide = load_model(MODEL, "bfloat16"), load_model(MODEL, "float32")
    for rounded, parameter in zip(narrow.parameters(), wide.parameters(), strict=True):
        parameter.set_value(rounded.astype("float32"))
    for model, precision in ((narrow, BF16_O2), (wide, FLOAT32)):
        accumulate_gradients(model, micro_batches(), sft_objective(), precision, recompute=False)
    assert_near(gradients_of(narrow), gradients_of(wide))


def test_small_gradients_of_later_micro_batches_are_not_lost(kernels: HalfKernels):
    """256 and then forty times a half: in bfloat16 every half would vanish."""
    layer = nn.Linear(1, 1, bias_attr=False)
    layer.weight = layer.create_parameter([1, 1], dtype="bfloat16")
    sizes = [256.0] + [0.5] * 40
    sharding = unsharded()
    for size in sizes:
        (layer.weight * paddle.full([1, 1], size, "bfloat16")).astype("float32").sum().backward()
        sharding.take(layer.named_parameters())
    sharding.settle(layer.named_parameters())
    assert layer.weight.grad.dtype == paddle.float32
    assert float(layer.weight.grad) == sum(sizes)
    total = paddle.zeros([1], "bfloat16")
    for size in sizes:
        total.add_(paddle.full([1], size, "bfloat16"))
    assert float(total) == 256.0


def test_o2_accumulates_the_sum_of_the_micro_batches(kernels: HalfKernels):
    """Each micro-batch's own gradient, added up in float64."""
    model = load_model(MODEL, "bfloat16")
    batches = micro_batches()
    accumulate_gradients(model, batches, sft_objective(), BF16_O2, recompute=False)
    together = gradients_of(model)
    count = sum(len(batch.target_ids) for batch in batches)
    total = {name: np.zeros_like(gradient, "float64") for name, gradient in together.items()}
    for batch in batches:
        for parameter in model.parameters():
            parameter.clear_gradient(set_to_zero=False)
        sft_objective().loss(run_head(model, batch, run_layers(model, batch)), None, None).loss({"tokens": count}).backward()
        for name, parameter in model.named_parameters():
            total[name] += parameter.grad.astype("float32").numpy()
    for name, gradient in together.items():
        assert np.abs(gradient - total[name]).max() <= 1e-6 * np.abs(total[name]).max(), name


def test_o2_checkpoint_and_resume_bit_for_bit(kernels: HalfKernels, tmp_path: Path):
    straight = load_model(MODEL, "bfloat16")
    optimizer = optimizer_of(straight)
    train(straight, optimizer, BF16_O2, 2)
    folder = save_checkpoint(tmp_path, straight, optimizer, TrainState(step=2), {})
    stored, state = read_tensors(folder / "model.safetensors"), read_tensors(folder / "optimizer.safetensors")
    assert {array.dtype for array in stored.values()} == {np.dtype(ml_dtypes.bfloat16)}
    assert {array.dtype for array in state.values()} == {np.dtype("float32")}
    assert {name for name in state if name.endswith(".master")} == {f"{name}.master" for name in stored}
    losses = train(straight, optimizer, BF16_O2, 3)

    resumed = load_model(MODEL, "bfloat16")
    fresh = optimizer_of(resumed)
    assert load_checkpoint(folder, resumed, fresh, BF16_O2).step == 2
    assert train(resumed, fresh, BF16_O2, 3) == losses
    for left, right in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert bool((left == right).all())
        assert bool((optimizer._master_weights[left.name] == fresh._master_weights[right.name]).all())


def test_o2_dpo_starts_at_ln_2(kernels: HalfKernels):
    model = load_model(MODEL, "bfloat16")
    table = compute_logps(model, examples(2), 0, BF16_O2, "test", False)
    assert table.dtype == np.float32
    sums = accumulate_gradients(model, micro_batches(2), dpo_objective(table_reference(table), 0.1, 0.0), BF16_O2, recompute=False)
    assert sums.means()["loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert kernels.mixed == []


def test_o1_keeps_the_weights_and_multiplies_in_half(autocast: HalfKernels, attended: list):
    model, wide = load_model(MODEL, BF16_O1.weights_dtype), load_model(MODEL, "float32")
    optimizer = optimizer_of(model)
    seen = []

    def loss(scores, reference_logps, context):
        seen.append(scores.token_logps.dtype)
        return sft_objective().loss(scores, reference_logps, context)

    objective = replace(sft_objective(), loss=loss)
    accumulate_gradients(model, micro_batches(), objective, BF16_O1, recompute=False)
    assert set(seen) == {paddle.float32}
    assert set(attended) == {(paddle.bfloat16,) * 4}
    assert paddle.bfloat16 in autocast.outputs
    assert dtypes([*model.parameters(), *(parameter.grad for parameter in model.parameters())]) == {paddle.float32}
    attended.clear()
    accumulate_gradients(wide, micro_batches(), sft_objective(), FLOAT32, recompute=False)
    assert set(attended) == {(paddle.float32,) * 4}
    assert_near(gradients_of(model), gradients_of(wide))
    apply_gradients(model, optimizer, BF16_O1, 1e-3, 1.0)
    assert optimizer._master_weights == {}


def test_o1_learns_what_float32_learns(autocast: HalfKernels):
    mixed, wide = load_model(MODEL, "float32"), load_model(MODEL, "float32")
    losses = train(mixed, optimizer_of(mixed), BF16_O1, 5)
    assert losses == pytest.approx(train(wide, optimizer_of(wide), FLOAT32, 5), rel=4 * EPS)
    assert losses[-1] < losses[0] - 1


@pytest.mark.parametrize("precision", [BF16_O1, BF16_O2])
def test_a_policy_answers_in_the_precision_of_its_training(autocast: HalfKernels, attended: list, precision: Precision):
    """What stages and shards are told is in the weights' dtype, as they expect it, under O1 too, where the head multiplies in half."""
    prompts = [[5, 6, 7], [8]]
    model, wide = load_model(MODEL, precision.weights_dtype), load_model(MODEL, "float32")
    found, exact = (
        RunningBatch(it, prompts, live_forward(kind, SINGLE, LONE_CHAIN, False)) for it, kind in ((model, precision), (wide, FLOAT32))
    )
    exact_logits = [exact.read_prompts()[1], exact.read_tokens([9, 10])[1]]
    attended.clear()
    autocast.outputs.clear()
    logits = [found.read_prompts()[1], found.read_tokens([9, 10])[1]]
    assert autocast.outputs == {paddle.bfloat16} and set(attended) == {(paddle.bfloat16,) * 4}
    assert dtypes(logits) == {getattr(paddle, precision.weights_dtype)}
    for left, right in zip(logits, exact_logits, strict=True):
        assert_near({"logits": left.astype("float32").numpy()}, {"logits": right.numpy()})


def test_half_precision_on_a_cpu_becomes_float32_and_is_said_once():
    for bf16, name in ((True, "bf16"), (False, "fp16")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            precision, remark = choose_precision(bf16, not bf16, "O2", "cpu")
        assert precision == FLOAT32 and precision.weights_dtype == "float32"
        assert remark is not None and remark.startswith(f"{name}: ") and "float32" in remark and "\n" not in remark
    assert choose_precision(bf16=False, fp16=False, level="O1", device="cpu") == (FLOAT32, None)
    assert choose_precision(bf16=True, fp16=False, level="O2", device="gpu") == (BF16_O2, None)
