"""Our decoder against HuggingFace transformers, on tiny random checkpoints made by scripts/golden/logits.py."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import paddle
import pytest

from paddlealign.models.config import read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.rope import TYPES, frequencies, read_rope
from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import find_weights, load_model, save_model
from scripts import models_page
from scripts.models_page import GOLDEN, LIMITS, NAMES, Figures

FAMILIES = ("gpt_neox", "llama", "mistral", "phi3", "qwen2", "qwen3")
STORED = {
    "llama2_gqa": "float16", "llama3": "bfloat16", "mistral": "bfloat16", "mistral_v3": "bfloat16", "phi3": "bfloat16", "pythia": "float16",
    "qwen2": "bfloat16", "qwen25_yarn": "bfloat16", "qwen3": "bfloat16",
}  # fmt: skip
PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def loaded(directory: Path) -> Decoder:
    """The checkpoint as a Decoder in float32."""
    return load_model(directory, "float32")


def stored_tensors(directory: Path) -> dict[str, np.ndarray]:
    """Every tensor of a model directory as it is stored."""
    return {name: array for path in set(find_weights(directory).values()) for name, array in read_tensors(path).items()}


def bits(array: np.ndarray) -> np.ndarray:
    """The bytes of an array, for comparison bit by bit."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


@pytest.fixture(scope="module")
def measured() -> dict[str, Figures]:
    """What scripts/models_page.py measures."""
    return {name: models_page.measure(GOLDEN / name) for name in NAMES}


@pytest.mark.parametrize("figure", ["logits", "loss", "gradients", "long", "padded", "branched"])
def test_every_checkpoint_computes_what_transformers_computes(measured: dict[str, Figures], figure: str) -> None:
    assert {read_config(GOLDEN / name).family for name in NAMES} == set(FAMILIES)
    for name in NAMES:
        assert getattr(measured[name], figure) <= getattr(LIMITS, figure), name


def test_docs_models_says_what_was_measured(measured: dict[str, Figures]) -> None:
    claimed = models_page.read_table(PAGE.read_text("utf-8"))
    assert models_page.faults(measured, claimed) == []
    # A page that leaves out a checkpoint, claims a better figure, or a figure beyond the limit, is found.
    name = NAMES[0]
    assert models_page.faults(measured, {key: value for key, value in claimed.items() if key != name})
    assert models_page.faults(measured, {**claimed, name: replace(claimed[name], logits=measured[name].logits / 10)})
    assert models_page.faults({**measured, name: replace(measured[name], long=3e-5)}, {**claimed, name: replace(claimed[name], long=3e-5)})


@pytest.mark.parametrize("name", NAMES)
def test_both_spellings_of_config_mean_the_same(name: str, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / name / "config.v4.json", tmp_path / "config.json")
    old, new = read_config(tmp_path), read_config(GOLDEN / name)
    assert old == new
    assert new.dtype == STORED.get(name, "float32")


@pytest.mark.parametrize("case", json.loads((GOLDEN / "rope.json").read_text()), ids=lambda case: case["parameters"]["rope_type"])
def test_rope_frequencies_are_those_of_transformers(case: dict) -> None:
    rope = read_rope({"rope_parameters": case["parameters"]}, 128, 4096, "config.json", None, tuple(TYPES))
    np.testing.assert_allclose(frequencies(rope, case["length"]), np.float32(case["frequencies"]), rtol=6e-7)
    assert rope.attention_factor == pytest.approx(case["attention_factor"], rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_written_back_it_is_the_same_bit_by_bit(name: str, tmp_path: Path) -> None:
    source = GOLDEN / name
    config = read_config(source)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    copied = {"generation_config.json": (source / "generation_config.json").read_bytes()}
    save_model(loaded(source).state_dict().__getitem__, config, tmp_path, copied, config.dtype, max_shard_bytes=16_000)
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
    save_model(loaded(source).state_dict().__getitem__, config, tmp_path, {}, "bfloat16", max_shard_bytes=16_000)
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
    save_model(model.state_dict().__getitem__, config, tmp_path, {}, "bfloat16")
    ours = stored_tensors(tmp_path)
    for key, array in stored_tensors(source).items():
        assert array.dtype == ml_dtypes.bfloat16
        assert np.array_equal(bits(ours[key]), bits(array)), key
