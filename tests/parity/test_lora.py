"""Adapters held to peft's figures, and a layer with an adapter to float64 NumPy."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import paddle
import pytest

from paddlealign.models.adapter_files import read_settings, read_values, save_adapter
from paddlealign.models.attention import packed_attention
from paddlealign.models.config import DecoderConfig, read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.linear import Adapter, Linear
from paddlealign.models.lora import attach, fill, merge
from paddlealign.models.makers import WHOLE_LAYERS
from paddlealign.models.other_adapter import NO_ADAPTER, worn
from paddlealign.models.parameters import LoraSettings, parameter_shapes
from paddlealign.models.score_head import with_score_head
from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import load_model
from paddlealign.recipes.adapter import load_adapted

GOLDEN = Path(__file__).with_name("golden")
NAMES = ("llama2_gqa", "qwen2_tied", "gpt_neox", "reward_llama2_gqa", "reward_gpt_neox")


def base_of(name: str) -> tuple[Path, DecoderConfig]:
    """The checkpoint that an adapter was trained beside, and the config of both: with a score head where the adapter brings one."""
    folder = GOLDEN / name.removeprefix("reward_")
    config = read_config(folder)
    return folder, with_score_head(config) if name.startswith("reward_") else config


def adapted(name: str) -> Decoder:
    base, config = base_of(name)
    model, folder = load_model(base, "float32", config=config), GOLDEN / "lora" / name
    settings = read_settings(folder, config)
    attach(model, settings, name)
    fill(model, read_values(folder, config, settings))
    return model


def logits_of(model: Decoder, ids: np.ndarray) -> paddle.Tensor:
    """ids: [rows, length]; returns [rows, length, vocab], or of a reward model [rows, 1]."""
    rows, length = ids.shape
    positions = np.tile(np.arange(length), (rows, 1))
    attend = packed_attention(np.full((rows, 1, length, 1), length, "int32"), positions)
    hidden = model(paddle.to_tensor(ids), paddle.to_tensor(positions), attend)
    return model.score(hidden[:, -1]).unsqueeze(1) if model.config.head == "score" else model.logits(hidden)


def loss_of(logits: paddle.Tensor, ids: np.ndarray) -> paddle.Tensor:
    """As ``loss_of`` in scripts/golden/lora.py."""
    if logits.ndim == 2:
        return -paddle.nn.functional.log_sigmoid(logits[0, 0] - logits[1, 0])
    return paddle.nn.functional.cross_entropy(logits[:, :-1].reshape([-1, 96]), paddle.to_tensor(ids[:, 1:].reshape(-1)))


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_gradients_are_pefts(name: str) -> None:
    golden = np.load(GOLDEN / "lora" / name / "golden.npz")
    model, ids = adapted(name), golden["input_ids"]
    logits = logits_of(model, ids)
    assert np.abs(logits.numpy() - golden["logits"]).max() <= 2e-5 * np.abs(golden["logits"]).max()
    with worn(model, NO_ADAPTER):
        assert np.abs(logits_of(model, ids).numpy() - golden["logits"]).max() > 0.05 * np.abs(golden["logits"]).max()
    loss = loss_of(logits, ids)
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
    model, (_, config) = adapted(name), base_of(name)
    assert model.adapter is not None
    save_adapter(dict(model.trained()).__getitem__, config, model.adapter, tmp_path, {"tokenizer.json": b"{}"}, "float32")
    wanted, found = (read_tensors(folder / "adapter_model.safetensors") for folder in (GOLDEN / "lora" / name, tmp_path))
    assert wanted.keys() == found.keys() and all(np.array_equal(wanted[key], found[key]) for key in wanted)
    assert read_settings(tmp_path, config) == read_settings(GOLDEN / "lora" / name, config) == model.adapter.settings
    assert (tmp_path / "tokenizer.json").read_bytes() == b"{}"
    told, ours = (json.loads((folder / "adapter_config.json").read_text()) for folder in (GOLDEN / "lora" / name, tmp_path))
    assert [told[key] for key in ("task_type", "modules_to_save")] == [ours.get(key) for key in ("task_type", "modules_to_save")]
    assert set(told["target_modules"]) == set(ours["target_modules"])


@pytest.mark.parametrize("name", NAMES)
def test_the_merged_model_computes_what_base_and_adapter_do(name: str) -> None:
    golden = np.load(GOLDEN / "lora" / name / "golden.npz")
    model = adapted(name)
    merge(model)
    assert model.adapter is None and set(model.state_dict()) == set(parameter_shapes(model.config))
    assert np.abs(logits_of(model, golden["input_ids"]).numpy() - golden["logits"]).max() <= 2e-5 * np.abs(golden["logits"]).max()


def test_an_adapters_head_takes_the_place_of_a_reward_models() -> None:
    folder, adapter = GOLDEN / "reward" / "llama2_gqa", GOLDEN / "lora" / "reward_llama2_gqa"
    golden = np.load(adapter / "golden.npz")
    model = load_adapted(str(folder), read_config(folder), "float32", False, str(adapter))
    found = logits_of(model, golden["input_ids"]).numpy()
    assert np.abs(found - golden["logits"]).max() <= 2e-5 * np.abs(golden["logits"]).max()


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
    layer.stand_beside(None, None)
    np.testing.assert_allclose(layer(given).numpy(), x @ weight + bias, rtol=1e-5, atol=1e-5)
