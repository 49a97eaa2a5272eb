"""Our decoder against HuggingFace transformers, on tiny random checkpoints made by scripts/golden/logits.py."""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import paddle
import pytest

from paddlealign.models.attention import packed_attention
from paddlealign.models.config import read_config, rope_frequencies
from paddlealign.models.decoder import Decoder
from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import find_weights, load_model, save_model

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("llama1", "llama2_gqa", "llama3", "llama_bias", "qwen2", "qwen2_tied")
STORED = {"llama1": "float32", "llama2_gqa": "float16", "llama3": "bfloat16", "llama_bias": "float32", "qwen2": "bfloat16"}


def loaded(directory: Path) -> Decoder:
    """The checkpoint as a Decoder in float32."""
    return load_model(directory, "float32")


def causal_logits(model: Decoder, input_ids: np.ndarray) -> paddle.Tensor:
    """Logits [rows, length, vocab] of plain rows."""
    rows, length = input_ids.shape
    position_ids = paddle.to_tensor(np.tile(np.arange(length), (rows, 1)))
    visible_until = np.full([rows, 1, length, 1], length, "int32")
    return model.logits(model(paddle.to_tensor(input_ids), position_ids, packed_attention(visible_until)))


def stored_tensors(directory: Path) -> dict[str, np.ndarray]:
    """Every tensor of a model directory as it is stored."""
    return {name: array for path in set(find_weights(directory).values()) for name, array in read_tensors(path).items()}


def bits(array: np.ndarray) -> np.ndarray:
    """The bytes of an array, for comparison bit by bit."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_gradients_are_those_of_transformers(name: str) -> None:
    golden = np.load(GOLDEN / name / "golden.npz")
    model = loaded(GOLDEN / name)
    logits = causal_logits(model, golden["input_ids"])
    assert np.abs(logits.numpy() - golden["logits"]).max() <= 2e-5
    labels = paddle.to_tensor(golden["input_ids"][:, 1:].reshape(-1))
    loss = paddle.nn.functional.cross_entropy(logits[:, :-1].reshape([-1, logits.shape[-1]]), labels)
    assert abs(float(loss) - float(golden["loss"])) <= 2e-6
    loss.backward()
    parameters = dict(model.named_parameters())
    assert {f"gradient {key}" for key in parameters} == {key for key in golden.files if key.startswith("gradient ")}
    for key, parameter in parameters.items():
        expected = golden[f"gradient {key}"]
        ours = parameter.grad.numpy()
        ours = ours.T if ours.ndim == 2 and "embed_tokens" not in key else ours
        # The key bias moves every score of a query alike, so its gradient is zero in truth and noise here and there.
        scale = max(np.abs(expected).max(), 1e-3)
        assert np.abs(ours - expected).max() <= 1e-4 * scale, key


@pytest.mark.parametrize("name", NAMES)
def test_both_spellings_of_config_mean_the_same(name: str, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / name / "config.v4.json", tmp_path / "config.json")
    old, new = read_config(tmp_path), read_config(GOLDEN / name)
    assert old == new
    assert new.dtype == STORED.get(name, "float32")


@pytest.mark.parametrize("name", NAMES)
def test_rope_frequencies_are_those_of_transformers(name: str) -> None:
    expected = np.load(GOLDEN / name / "golden.npz")["frequencies"]
    np.testing.assert_allclose(rope_frequencies(read_config(GOLDEN / name)), expected, rtol=3e-7)


@pytest.mark.parametrize("name", NAMES)
def test_written_back_it_is_the_same_bit_by_bit(name: str, tmp_path: Path) -> None:
    source = GOLDEN / name
    config = read_config(source)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    copied = {"generation_config.json": source / "generation_config.json"}
    save_model(loaded(source).state_dict(), config, tmp_path, copied, config.dtype, max_shard_bytes=16_000)
    theirs, ours = stored_tensors(source), stored_tensors(tmp_path)
    assert theirs.keys() == ours.keys()
    for key, array in theirs.items():
        assert ours[key].dtype == array.dtype and ours[key].shape == array.shape
        assert np.array_equal(bits(ours[key]), bits(array)), key
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((source / "config.json").read_text())
    assert (tmp_path / "generation_config.json").read_bytes() == (source / "generation_config.json").read_bytes()
    assert before == {path.name: path.read_bytes() for path in source.iterdir()}


def test_shards_and_index_are_those_of_transformers(tmp_path: Path) -> None:
    source = GOLDEN / "llama3"
    config = read_config(source)
    save_model(loaded(source).state_dict(), config, tmp_path, {}, "bfloat16", max_shard_bytes=16_000)
    for path in source.glob("model*"):
        if path.suffix == ".safetensors":
            assert (tmp_path / path.name).read_bytes() == path.read_bytes()
        else:
            assert json.loads((tmp_path / path.name).read_text()) == json.loads(path.read_text())


@pytest.mark.parametrize("name", ("llama3", "qwen2"))
def test_bfloat16_loaded_as_bfloat16_is_the_same_bit_by_bit(name: str, tmp_path: Path) -> None:
    source = GOLDEN / name
    config = read_config(source)
    model = load_model(source, "bfloat16")
    assert paddle.get_default_dtype() == "float32"
    assert all(parameter.dtype == paddle.bfloat16 for parameter in model.parameters())
    assert model.model.frequencies.dtype == paddle.float32
    save_model(model.state_dict(), config, tmp_path, {}, "bfloat16")
    ours = stored_tensors(tmp_path)
    for key, array in stored_tensors(source).items():
        assert array.dtype == ml_dtypes.bfloat16
        assert np.array_equal(bits(ours[key]), bits(array)), key
