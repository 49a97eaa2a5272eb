"""Adapters held to peft's figures, and a layer with an adapter to float64 NumPy."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import paddle
import pytest

from paddlealign.models.adapter_files import read_settings, read_values, save_adapter
from paddlealign.models.attention import packed_attention
from paddlealign.models.config import read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.linear import Adapter, Linear
from paddlealign.models.lora import attach, fill, merge
from paddlealign.models.makers import WHOLE_LAYERS
from paddlealign.models.parameters import LoraSettings
from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import load_model

GOLDEN = Path(__file__).with_name("golden")
NAMES = ("llama2_gqa", "qwen2_tied", "gpt_neox")


def adapted(name: str) -> Decoder:
    model, folder = load_model(GOLDEN / name, "float32"), GOLDEN / "lora" / name
    settings = read_settings(folder, model.config)
    attach(model, settings, name)
    fill(model, read_values(folder, model.config, settings))
    return model


def logits_of(model: Decoder, ids: np.ndarray) -> paddle.Tensor:
    """ids: [rows, length]; returns [rows, length, vocab]."""
    rows, length = ids.shape
    positions = np.tile(np.arange(length), (rows, 1))
    attend = packed_attention(np.full((rows, 1, length, 1), length, "int32"), positions)
    return model.logits(model(paddle.to_tensor(ids), paddle.to_tensor(positions), attend))


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_gradients_are_pefts(name: str) -> None:
    golden = np.load(GOLDEN / "lora" / name / "golden.npz")
    model, ids = adapted(name), golden["input_ids"]
    logits = logits_of(model, ids)
    assert np.abs(logits.numpy() - golden["logits"]).max() <= 2e-5 * np.abs(golden["logits"]).max()
    without = logits_of(load_model(GOLDEN / name, "float32"), ids).numpy()
    assert np.abs(without - golden["logits"]).max() > 0.05 * np.abs(golden["logits"]).max()
    loss = paddle.nn.functional.cross_entropy(logits[:, :-1].reshape([-1, 96]), paddle.to_tensor(ids[:, 1:].reshape(-1)))
    loss.backward()
    assert float(loss) == pytest.approx(float(golden["loss"]), rel=1e-6)
    names = {key.removeprefix("gradient ") for key in golden.files if key.startswith("gradient ")}
    assert len(names) == len(model.trained())
    gradients = gradient_files(model)
    assert gradients.keys() == names
    for key, found in gradients.items():
        wanted = golden[f"gradient {key}"]
        assert np.abs(found - wanted).max() <= 2e-5 * np.abs(wanted).max(), key
    trained = {parameter.name for _, parameter in model.trained()}
    assert all(parameter.grad is None for parameter in model.parameters() if parameter.name not in trained)


def gradient_files(model: Decoder) -> dict[str, np.ndarray]:
    """The gradients under the names and in the layout in which the parameters would be saved."""
    held = {name: parameter.grad for name, parameter in model.trained()}
    assert model.adapter is not None
    with TemporaryDirectory() as folder:
        save_adapter(held.__getitem__, model.config, model.adapter, folder, {}, "float32")
        return read_tensors(Path(folder) / "adapter_model.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_saving_what_was_read_gives_the_same_tensors_and_settings(name: str, tmp_path: Path) -> None:
    model, config = adapted(name), read_config(GOLDEN / name)
    assert model.adapter is not None
    save_adapter(dict(model.trained()).__getitem__, config, model.adapter, tmp_path, {"tokenizer.json": b"{}"}, "float32")
    wanted, found = (read_tensors(folder / "adapter_model.safetensors") for folder in (GOLDEN / "lora" / name, tmp_path))
    assert wanted.keys() == found.keys() and all(np.array_equal(wanted[key], found[key]) for key in wanted)
    assert read_settings(tmp_path, config) == read_settings(GOLDEN / "lora" / name, config) == model.adapter.settings
    assert (tmp_path / "tokenizer.json").read_bytes() == b"{}"


@pytest.mark.parametrize("name", NAMES)
def test_the_merged_model_computes_what_base_and_adapter_do(name: str) -> None:
    golden = np.load(GOLDEN / "lora" / name / "golden.npz")
    model = adapted(name)
    merge(model)
    assert model.adapter is None and set(model.state_dict()) == set(load_model(GOLDEN / name, "float32").state_dict())
    assert np.abs(logits_of(model, golden["input_ids"]).numpy() - golden["logits"]).max() <= 2e-5 * np.abs(golden["logits"]).max()


@pytest.mark.parametrize("cut_inputs", [False, True])
@pytest.mark.parametrize(("rslora", "scale"), [(False, 5 / 4), (True, 5 / 2)])
def test_a_layer_is_the_float64_formula(cut_inputs: bool, rslora: bool, scale: float) -> None:
    rng = np.random.default_rng(3)
    x, weight, bias, a, b, above = (rng.standard_normal(shape) for shape in [(2, 3, 6), (6, 5), (5,), (6, 4), (4, 5), (2, 3, 5)])
    layer = Linear(6, 5, True, WHOLE_LAYERS, cut_inputs)
    layer.attach(Adapter(LoraSettings(4, 5.0, rslora, 0.0, ("x",)), "base"))
    for parameter, value in ((layer.weight, weight), (layer.bias, bias), (layer.lora_A, a), (layer.lora_B, b)):
        parameter.set_value(value.astype("float32"))
    given = paddle.to_tensor(x.astype("float32"), stop_gradient=False)
    result = layer(given)
    (result * paddle.to_tensor(above.astype("float32"))).sum().backward()
    flat, upstream = x.reshape(-1, 6), above.reshape(-1, 5)
    for found, wanted in (
        (result, x @ weight + bias + scale * (x @ a) @ b),  # Hu et al. 2021, equation 3
        (given.grad, above @ (weight + scale * a @ b).T),
        (layer.lora_A.grad, scale * flat.T @ (upstream @ b.T)),
        (layer.lora_B.grad, scale * (flat @ a).T @ upstream),
    ):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-5, atol=2e-5)
    layer.adapter.active = False
    np.testing.assert_allclose(layer(given).numpy(), x @ weight + bias, rtol=1e-5, atol=1e-5)
