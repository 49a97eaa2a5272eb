"""Weights in and out: refusals by name, conversions, shards, and files that are the library's byte for byte."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from paddlealign.errors import UserError
from paddlealign.models import weights
from paddlealign.models.config import parse_config, read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.makers import WHOLE_LAYERS, Stage
from paddlealign.models.parameters import EMBEDDING, HEAD, cut_axis, parameter_shapes
from paddlealign.models.tensor_files import TensorSpec, read_tensors, write_streamed, write_tensors
from paddlealign.models.tensor_places import numpy_dtype
from paddlealign.models.weights import load_model, load_weights, save_model
from tests.small_runs import GOLDEN
from tests.torch_files import as_torch_folder

SOURCE = {
    "model_type": "llama",
    "vocab_size": 11,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 6,
    "torch_dtype": "float32",
}
Q = "model.layers.0.self_attn.q_proj.weight"


def random_state(model: Decoder) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(tensor.shape).astype("float32") for name, tensor in model.state_dict().items()}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A whole checkpoint of a tiny LLaMA."""
    config = parse_config(SOURCE, "")
    folder = tmp_path / "model"
    save_model(random_state(Decoder(config)).__getitem__, config, folder, {}, "float32")
    return folder


def change(folder: Path, edit) -> None:
    tensors = read_tensors(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def refusal(folder: Path, dtype: str = "float32") -> str:
    with pytest.raises(UserError) as refused:
        load_model(folder, dtype)
    return str(refused.value)


def test_linear_weights_are_transposed_and_the_embedding_is_not(checkpoint: Path) -> None:
    model = Decoder(read_config(checkpoint))
    load_weights(model, checkpoint)
    stored = read_tensors(checkpoint / "model.safetensors")
    assert stored.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        expected = stored[name].T if stored[name].ndim == 2 and name != EMBEDDING else stored[name]
        assert np.array_equal(tensor.numpy(), expected), name


def test_missing_left_over_and_wrong_shape_are_refused_by_name(checkpoint: Path) -> None:
    whole = (checkpoint / "model.safetensors").read_bytes()
    change(checkpoint, lambda tensors: tensors.pop(Q))
    assert Q in (message := refusal(checkpoint)) and "missing" in message
    (checkpoint / "model.safetensors").write_bytes(whole)
    change(checkpoint, lambda tensors: tensors.update({"model.layers.1.extra.weight": np.zeros(2, "float32")}))
    assert "1 left over: model.layers.1.extra.weight" in refusal(checkpoint)
    (checkpoint / "model.safetensors").write_bytes(whole)
    change(checkpoint, lambda tensors: tensors.update({"model.layers.0.self_attn.k_proj.weight": np.zeros((8, 4), "float32")}))
    message = refusal(checkpoint)
    assert "k_proj.weight has the shape [8, 4]; config.json makes it [4, 8]" in message
    (checkpoint / "model.safetensors").write_bytes(whole)
    change(checkpoint, lambda tensors: tensors.update({Q: tensors[Q].astype("int8")}))
    assert f"{Q} is stored as int8" in refusal(checkpoint)


def test_a_refusal_leaves_the_model_as_it_was(checkpoint: Path) -> None:
    change(checkpoint, lambda tensors: tensors.update({"model.norm.weight": np.zeros(9, "float32")}))
    model = Decoder(read_config(checkpoint))
    with pytest.raises(UserError, match=r"model\.norm\.weight"):
        load_weights(model, checkpoint)
    assert all(not parameter.numpy().any() for parameter in model.parameters())


def test_rotary_buffers_of_old_checkpoints_are_left_alone(checkpoint: Path) -> None:
    change(checkpoint, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, "float32")}))
    load_weights(Decoder(read_config(checkpoint)), checkpoint)


def test_paddlenlp_names_get_their_own_words(checkpoint: Path) -> None:
    def rename(tensors: dict) -> None:
        for name in list(tensors):
            tensors[name.replace("model.", "llama.", 1)] = tensors.pop(name)

    change(checkpoint, rename)
    assert "PaddleNLP" in refusal(checkpoint)
    for path in checkpoint.glob("*.safetensors*"):
        path.unlink()
    (checkpoint / "model_state.pdparams").touch()
    assert "PaddleNLP's layout (it holds model_state.pdparams)" in refusal(checkpoint)


def test_truncated_file_is_refused(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    content = path.read_bytes()
    for size in (len(content) - 8, 100, 3, 0):
        path.write_bytes(content[:size])
        assert "not a whole safetensors file" in refusal(checkpoint)


def test_directories_without_usable_weights(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    assert "no weights here" in refusal(checkpoint)
    (checkpoint / "adapter_model.safetensors").touch()
    assert "base model" in refusal(checkpoint)
    (checkpoint / "pytorch_model.bin").touch()
    message = refusal(checkpoint)
    assert "pytorch_model.bin" in message and "allow_pickle" in message
    with pytest.raises(UserError, match="no such directory"):
        load_weights(Decoder(read_config(checkpoint)), tmp_path / "nowhere")


def sharded(folder: Path, target: Path) -> list[Path]:
    """The checkpoint again, in shards."""
    config = read_config(folder)
    model = Decoder(config)
    load_weights(model, folder)
    save_model(model.state_dict().__getitem__, config, target, {}, "float32", max_shard_bytes=700)
    return sorted(target.glob("*.safetensors"))


def test_shards_hold_the_same_tensors(checkpoint: Path, tmp_path: Path) -> None:
    shards = sharded(checkpoint, tmp_path / "shards")
    assert len(shards) > 2
    assert [path.name for path in shards] == [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    assert all(sum(array.nbytes for array in read_tensors(path).values()) <= 700 for path in shards)
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    whole = read_tensors(checkpoint / "model.safetensors")
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in whole.values())
    together = {name: array for path in shards for name, array in read_tensors(path).items()}
    assert together.keys() == whole.keys() == index["weight_map"].keys()
    assert all(np.array_equal(together[name], whole[name]) for name in whole)


def test_broken_shards_are_named(checkpoint: Path, tmp_path: Path) -> None:
    shards = sharded(checkpoint, tmp_path / "shards")
    shutil.copy(shards[0], shards[1])
    assert shards[1].name in refusal(tmp_path / "shards")
    shards[1].unlink()
    message = refusal(tmp_path / "shards")
    assert shards[1].name in message and "not found" in message
    (tmp_path / "shards" / "model.safetensors.index.json").write_text("{}")
    assert "weight_map" in refusal(tmp_path / "shards")


def test_saving_again_leaves_no_stale_weights(checkpoint: Path, tmp_path: Path) -> None:
    sharded(checkpoint, tmp_path / "shards")
    (tmp_path / "shards" / "notes.safetensors").touch()
    config = read_config(checkpoint)
    save_model(random_state(Decoder(config)).__getitem__, config, tmp_path / "shards", {}, "float32")
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {"model.safetensors", "config.json", "notes.safetensors"}


def test_tied_head(tmp_path: Path) -> None:
    config = parse_config({**SOURCE, "tie_word_embeddings": True}, "")
    folder = tmp_path / "tied"
    save_model(random_state(Decoder(config)).__getitem__, config, folder, {}, "float32")
    assert HEAD not in read_tensors(folder / "model.safetensors")
    load_weights(Decoder(config), folder)
    change(folder, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].copy()}))
    load_weights(Decoder(config), folder)
    change(folder, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING] + 1}))
    assert "tie_word_embeddings" in refusal(folder)


def test_missing_head_hints_at_tied_embeddings(checkpoint: Path) -> None:
    change(checkpoint, lambda tensors: tensors.pop(HEAD))
    assert "tie_word_embeddings" in refusal(checkpoint)


@pytest.mark.parametrize(("key", "before"), [("dtype", "float32"), ("torch_dtype", "float32")])
def test_config_is_written_back_with_the_new_dtype(key: str, before: str, tmp_path: Path) -> None:
    source = {name: value for name, value in SOURCE.items() if name != "torch_dtype"} | {key: before, "use_cache": True}
    config = parse_config(source, "")
    save_model(random_state(Decoder(config)).__getitem__, config, tmp_path / "out", {}, "bfloat16")
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {**source, key: "bfloat16"}
    assert {array.dtype.name for array in read_tensors(tmp_path / "out" / "model.safetensors").values()} == {"bfloat16"}


def test_tokenizer_files_are_copied(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "tokenizer_config.json").write_text("{}")
    (checkpoint / "README.md").write_text("not copied")
    (checkpoint / "generation_config.json").write_text('{"eos_token_id": 2}')
    config = read_config(checkpoint)
    copied = {name: (checkpoint / name).read_bytes() for name in ("tokenizer_config.json", "generation_config.json")}
    save_model(random_state(Decoder(config)).__getitem__, config, tmp_path / "out", copied, "float32")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"model.safetensors", "config.json", "tokenizer_config.json", "generation_config.json"}


def test_values_beyond_float16_are_refused_and_bfloat16_takes_them(checkpoint: Path) -> None:
    change(checkpoint, lambda tensors: tensors.update({"model.norm.weight": np.full(8, 1e6, "float32")}))
    assert "model.norm.weight has values beyond float16" in refusal(checkpoint, "float16")
    model = load_model(checkpoint, "bfloat16")
    assert model.model.norm.weight.dtype == paddle.bfloat16
    assert model.model.norm.weight.numpy().view(ml_dtypes.bfloat16)[0] == ml_dtypes.bfloat16(1e6)


DTYPES = st.sampled_from(["float32", "float16", "bfloat16", "int64", "uint8", "bool"])
NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__")
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(specs=st.dictionaries(NAMES, st.tuples(DTYPES, SHAPES), max_size=6))
def test_written_files_are_those_of_the_library(specs: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "tensors.safetensors"
    random = np.random.default_rng(0)
    tensors = {
        name: np.asarray(random.integers(0, 2, shape) * 3).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        for name, (dtype, shape) in specs.items()
    }
    write_tensors(path, tensors, {"format": "pt"})
    assert path.read_bytes() == save(tensors, {"format": "pt"})
    back = read_tensors(path)
    assert back.keys() == tensors.keys()
    assert all(back[name].dtype == tensors[name].dtype and np.array_equal(back[name], tensors[name]) for name in tensors)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "tensors.safetensors"
    write_tensors(path, {"a": np.ones(3)})
    before = path.read_bytes()

    def fail(_: str) -> np.ndarray:
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        write_streamed(path, [TensorSpec("a", "float64", (3,))], fail, {})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_tensors(tmp_path / "file" / "tensors.safetensors", {"a": np.ones(3)})
    assert path.read_bytes() == before and {entry.name for entry in tmp_path.iterdir()} == {"tensors.safetensors", "file"}


def test_a_larger_vocabulary_begins_with_the_mean_of_the_old_rows(checkpoint: Path, tmp_path: Path) -> None:
    stored = read_tensors(checkpoint / "model.safetensors")
    model = load_model(checkpoint, "float32", vocab_size=14)
    assert model.config.vocab_size == 14
    for name, array in (
        (EMBEDDING, model.model.embed_tokens.weight.numpy()),
        (HEAD, model.lm_head.weight.numpy().T),
    ):
        assert array.shape == (14, 8)
        assert np.array_equal(array[:11], stored[name])
        np.testing.assert_allclose(array[11:], np.tile(stored[name].astype("float64").mean(0), (3, 1)), rtol=1e-6)
    assert np.array_equal(load_model(checkpoint, "float32", vocab_size=14).lm_head.weight.numpy(), model.lm_head.weight.numpy())
    # Saved, it is a model of that size, which needs no further word.
    save_model(model.state_dict().__getitem__, model.config, tmp_path / "grown", {}, "float32")
    assert json.loads((tmp_path / "grown" / "config.json").read_text())["vocab_size"] == 14
    again = load_model(tmp_path / "grown", "float32")
    load_weights(model, tmp_path / "grown")
    assert all(np.array_equal(tensor.numpy(), model.state_dict()[name].numpy()) for name, tensor in again.state_dict().items())


def test_a_smaller_vocabulary_asked_for_changes_nothing(checkpoint: Path) -> None:
    assert load_model(checkpoint, "float32", vocab_size=5).model.embed_tokens.weight.shape == [11, 8]


def test_a_larger_tied_vocabulary(tmp_path: Path) -> None:
    config = parse_config({**SOURCE, "tie_word_embeddings": True}, "")
    save_model(random_state(Decoder(config)).__getitem__, config, tmp_path / "tied", {}, "bfloat16")
    stored = read_tensors(tmp_path / "tied" / "model.safetensors")[EMBEDDING]
    model = load_model(tmp_path / "tied", "bfloat16", vocab_size=13)
    array = model.model.embed_tokens.weight.numpy().view(ml_dtypes.bfloat16)
    assert np.array_equal(array[:11], stored)
    assert np.array_equal(array[11:], np.tile(stored.astype("float64").mean(0).astype(ml_dtypes.bfloat16), (2, 1)))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("wanted", ["float32", "float16", "bfloat16"])
def test_every_dtype_converts_to_every_other_as_numpy_does(dtype: str, wanted: str, tmp_path: Path) -> None:
    config = parse_config(SOURCE, "")
    state = random_state(Decoder(config))
    save_model(state.__getitem__, config, tmp_path / "model", {}, dtype)
    for name, tensor in load_model(tmp_path / "model", wanted).state_dict().items():
        expected = state[name].astype(numpy_dtype(dtype)).astype(numpy_dtype(wanted))
        assert np.array_equal(tensor.numpy().view(numpy_dtype(wanted)), expected), name


def test_blocks_and_stripes_do_not_change_a_bit(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = load_model(checkpoint, "bfloat16").state_dict()
    monkeypatch.setattr("paddlealign.models.tensor_places.BLOCK_BYTES", 40)
    monkeypatch.setattr("paddlealign.models.tensor_memory.STRIPE", 3)
    for name, tensor in load_model(checkpoint, "bfloat16").state_dict().items():
        assert np.array_equal(tensor.numpy(), at_once[name].numpy()), name


def test_a_parameter_off_the_cpu_gets_its_values_by_set_value(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_model(checkpoint, "bfloat16").state_dict()
    monkeypatch.setattr(weights, "lies_open", lambda tensor: False)
    for name, tensor in load_model(checkpoint, "bfloat16").state_dict().items():
        assert np.array_equal(tensor.numpy(), expected[name].numpy()), name


@pytest.mark.parametrize("shards", [1, 3])
def test_torchs_files_give_the_same_model_where_the_key_allows_them(checkpoint: Path, tmp_path: Path, shards: int) -> None:
    folder = as_torch_folder(checkpoint, tmp_path / "torch", shards)
    assert "allow_pickle" in refusal(folder)
    expected = load_model(checkpoint, "float32").state_dict()
    for name, tensor in load_model(folder, "float32", allow_pickle=True).state_dict().items():
        assert np.array_equal(tensor.numpy(), expected[name].numpy()), name
    shutil.copy(checkpoint / "model.safetensors", folder)
    load_model(folder, "float32")  # safetensors are preferred, and need no key


def test_parameter_shapes_are_those_of_the_decoder() -> None:
    for folder in sorted(path.parent for path in GOLDEN.glob("*/golden.npz")):
        config = read_config(folder)
        assert list(parameter_shapes(config).items()) == [(name, tuple(it.shape)) for name, it in Decoder(config).named_parameters()]


@pytest.mark.parametrize(
    ("name", "parts"), [("llama1", 4), ("llama_bias", 2), ("qwen3", 2), ("qwen3_window", 4), ("gpt_neox", 2), ("phi3", 2)]
)
def test_each_process_reads_its_share(name: str, parts: int) -> None:
    """The shares of all processes, put together, are the whole; what pads a vocabulary is zeros."""
    whole = {key: it.numpy() for key, it in load_model(GOLDEN / name, "float32", vocab_size=98).named_parameters()}
    shares = [part_of_a_model(GOLDEN / name, part, parts, 98) for part in range(parts)]
    for key, expected in whole.items():
        axis = cut_axis(key)
        held = [share[key] for share in shares]
        joined = held[0] if axis is None else np.concatenate(held, axis)
        assert axis is not None or all((part == expected).all() for part in held)
        padding = np.split(joined, [expected.shape[axis]], axis)[1] if axis is not None else np.zeros(0)
        assert not padding.any(), key
        np.testing.assert_array_equal(joined[tuple(slice(size) for size in expected.shape)], expected, key)


def test_a_stage_reads_its_layers() -> None:
    folder = GOLDEN / "qwen2_tied"
    config, whole = read_config(folder), load_model(folder, "float32").state_dict()
    for stage, ends in ((Stage(0, 1), {EMBEDDING}), (Stage(1, 2), {EMBEDDING, "model.norm.weight"})):
        part = Decoder(config, stage=stage)
        load_weights(part, folder)
        held = dict(part.named_parameters())
        assert held.keys() == ends | {name for name in whole if name.startswith(f"model.layers.{stage.first}.")}
        for name, parameter in held.items():
            np.testing.assert_array_equal(parameter.numpy(), whole[name].numpy())


def test_a_far_too_large_config_takes_no_memory(tmp_path: Path) -> None:
    """Names and shapes are held to the files before the model is built: these would be 250 GB and a million tensors."""
    shutil.copytree(GOLDEN / "llama1", tmp_path / "model")
    source = json.loads((tmp_path / "model" / "config.json").read_text())
    for change, words in (({"vocab_size": 2_000_000_000}, "shape"), ({"num_hidden_layers": 10_000}, "89,982 missing: ")):
        (tmp_path / "model" / "config.json").write_text(json.dumps({**source, **change}))
        with pytest.raises(UserError, match=words):
            load_model(tmp_path / "model", "float32")


def part_of_a_model(folder: Path, part: int, parts: int, vocab_size: int) -> dict[str, np.ndarray]:
    """What one of several tensor-parallel processes holds, without the processes."""
    make = replace(WHOLE_LAYERS, parts=parts, part=part)
    config = read_config(folder)
    model = Decoder(replace(config, vocab_size=vocab_size), make)
    load_weights(model, folder, stored=config)
    return {name: parameter.numpy() for name, parameter in model.named_parameters()}
