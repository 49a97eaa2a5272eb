"""float16's loss scaling: the scale goes in and out again, an overflow costs one step, and the state survives a checkpoint."""

from pathlib import Path

import numpy as np
import pytest

from paddlealign.models.weights import load_model
from paddlealign.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from paddlealign.training.objective import sft_objective
from paddlealign.training.precision import Precision, choose_precision
from paddlealign.training.step import accumulate_gradients, apply_gradients
from tests.half_precision import loss_scaling
from tests.small_runs import FLOAT32, MODEL, gradients_of, micro_batches, optimizer_of, train


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> Precision:
    """See ``loss_scaling``."""
    return loss_scaling(monkeypatch)


def test_fp16_scales_the_loss_and_takes_the_scale_out_again(scaled: Precision):
    """A power of two costs no bit, so the steps are those of float32, but for what is so small that it counts as zero there."""
    model, plain = load_model(MODEL, "float32"), load_model(MODEL, "float32")
    accumulate_gradients(model, micro_batches(), sft_objective(), scaled, recompute=False)
    accumulate_gradients(plain, micro_batches(), sft_objective(), FLOAT32, recompute=False)
    exact = gradients_of(plain)
    for name, gradient in gradients_of(model).items():
        assert np.abs(gradient - exact[name] * np.float32(2.0**15)).max() < 1e-30, name
    optimizers = [optimizer_of(model), optimizer_of(plain)]
    norms = [apply_gradients(model, optimizers[0], scaled, 1e-2, 1.0), apply_gradients(plain, optimizers[1], FLOAT32, 1e-2, 1.0)]
    assert norms[0] == norms[1] > 1
    assert train(model, optimizers[0], scaled, 2) == train(plain, optimizers[1], FLOAT32, 2)
    for left, right in zip(model.parameters(), plain.parameters(), strict=True):
        assert bool((left == right).all())


def test_fp16_overflow_leaves_the_weights_and_lowers_the_scale(scaled: Precision, tmp_path: Path, capsys: pytest.CaptureFixture):
    model = load_model(MODEL, "float32")
    optimizer = optimizer_of(model)
    train(model, optimizer, scaled, 1)
    before = {name: parameter.numpy().copy() for name, parameter in model.named_parameters()}
    moments = {name: moment.numpy().copy() for name, moment in optimizer._accumulators["moment1"].items()}
    accumulate_gradients(model, micro_batches(), sft_objective(), scaled, recompute=False)
    model.model.norm.weight.grad[3] = float("inf")
    assert not np.isfinite(apply_gradients(model, optimizer, scaled, 1e-2, 1.0))
    assert all((parameter.numpy() == before[name]).all() for name, parameter in model.named_parameters())
    assert all((moment.numpy() == moments[name]).all() for name, moment in optimizer._accumulators["moment1"].items())
    assert scaled.scaler_state()["scale"] == [2.0**14]
    train(model, optimizer, scaled, 1)
    assert any((parameter.numpy() != before[name]).any() for name, parameter in model.named_parameters())

    folder = save_checkpoint(tmp_path, model, optimizer, TrainState(step=3, scaler=scaled.scaler_state()), {})
    fresh = choose_precision(bf16=False, fp16=True, level="O1", device="gpu")[0]
    load_checkpoint(folder, model, optimizer, fresh)
    assert fresh.scaler_state() == scaled.scaler_state()
    assert fresh.scaler_state()["scale"] == [2.0**14] and fresh.scaler_state()["incr_count"] == 1
