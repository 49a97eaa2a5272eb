"""Model folders that are broken: one clear line each, which names the file and what to do."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from paddlealign.errors import UserError
from paddlealign.models.parameters import EMBEDDING, HEAD
from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import load_model
from paddlealign.recipes.entry import main
from tests.torch_files import write_archive

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"
K = "model.layers.1.self_attn.k_proj.weight"
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A LLaMA in float16 in one file."""
    return shutil.copytree(GOLDEN / "llama2_gqa", tmp_path / "whole")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A LLaMA in bfloat16 in several files."""
    return shutil.copytree(GOLDEN / "llama3", tmp_path / "sharded")


def refusal(folder: Path, allow_pickle: bool = False) -> str:
    with pytest.raises(UserError) as refused:
        load_model(folder, "float32", allow_pickle=allow_pickle)
    message = str(refused.value)
    assert str(folder) in message
    return message


def change(path: Path, edit: Callable[[dict], object]) -> None:
    tensors = read_tensors(path)
    edit(tensors)
    save_file(tensors, path, {"format": "pt"})


def change_json(path: Path, edit: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def change_header(path: Path, edit: Callable[[dict], object]) -> None:
    """Rewrite a safetensors header and leave the bytes behind it."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def shard_of(folder: Path, tensor: str) -> Path:
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][tensor]


# ---- files


@pytest.mark.parametrize("kept", [0, 5, 8, 400, -1, -300])
def test_a_truncated_shard(sharded: Path, kept: int) -> None:
    shard = shard_of(sharded, K)
    shard.write_bytes(shard.read_bytes()[:kept])
    message = refusal(sharded)
    assert message.startswith(f"{shard}: not a whole safetensors file") and "fetch it again" in message


def test_a_file_with_more_behind_it(whole: Path) -> None:
    with (whole / WHOLE).open("ab") as file:
        file.write(b"\0" * 16)
    assert f"{whole / WHOLE}: not a whole safetensors file: its tensors take" in refusal(whole)


@pytest.mark.parametrize(
    ("code", "said"), [("F32", "takes"), ("F33", "'F33', which the format does not have"), (7, "7, which the format does not have")]
)
def test_a_wrong_dtype_in_the_header(whole: Path, code: object, said: str) -> None:
    change_header(whole / WHOLE, lambda header: header[K].update(dtype=code))
    message = refusal(whole)
    assert K in message and said in message and "fetch it again" in message


@pytest.mark.parametrize("dtype", ["float64", "int8", "int64"])
def test_a_dtype_that_is_not_read(whole: Path, dtype: str) -> None:
    change(whole / WHOLE, lambda tensors: tensors.update({K: tensors[K].astype(dtype)}))
    kind = "of another dtype than float32, bfloat16, float16, which are read (quantised weights are not)"
    assert f"\n  1 {kind}: {K} is stored as {dtype}\n" in refusal(whole)


def test_eight_bit_floats_are_named(whole: Path) -> None:
    change(whole / WHOLE, lambda tensors: tensors.update({K: tensors[K].astype("int8")}))
    change_header(whole / WHOLE, lambda header: header[K].update(dtype="F8_E4M3"))
    assert f"{K} is stored as F8_E4M3" in refusal(whole)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ((10**9).to_bytes(8, "little") + b"{}", "its header would have 1,000,000,000 bytes, the file has 10"),
        ((2**64 - 1).to_bytes(8, "little") + b"{}", "its header would have"),
        ((3).to_bytes(8, "little") + b"{,}", "its header is not a JSON object"),
        ((2).to_bytes(8, "little") + b"[]", "its header is not a JSON object"),
        ((9).to_bytes(8, "little") + b'{"a": []}', "does not describe a by dtype"),
        (b"<!DOCTYPE html><html>not found</html>", "its header would have"),
        (b"", "it has 0 bytes"),
    ],
)
def test_a_header_that_is_none(whole: Path, content: bytes, said: str) -> None:
    (whole / WHOLE).write_bytes(content)
    message = refusal(whole)
    assert said in message and "fetch it again" in message


def test_overlapping_and_negative_places_in_the_header(whole: Path) -> None:
    sound = (whole / WHOLE).read_bytes()
    change_header(whole / WHOLE, lambda header: header[K].update(data_offsets=[0, 1024]))
    assert "the bytes of" in refusal(whole)
    (whole / WHOLE).write_bytes(sound)
    change_header(whole / WHOLE, lambda header: header[K].update(shape=[-1, 32]))
    assert f"gives {K} the shape [-1, 32]" in refusal(whole)


def test_a_git_lfs_pointer(whole: Path) -> None:
    (whole / WHOLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 13476839424\n")
    message = refusal(whole)
    assert str(whole / WHOLE) in message and "Git LFS" in message and "git lfs pull" in message


def test_an_index_that_names_a_missing_file(sharded: Path) -> None:
    shard = shard_of(sharded, K)
    shard.unlink()
    assert refusal(sharded) == f"{shard}: not found, but {INDEX} names it. Fetch the missing shard."


def test_an_index_that_names_a_tensor_that_its_shard_lacks(sharded: Path) -> None:
    change(shard_of(sharded, K), lambda tensors: tensors.pop(K))
    message = refusal(sharded)
    assert str(shard_of(sharded, K)) in message and f"{K} is not in it, but {INDEX} says so" in message


def test_a_tensor_in_two_shards(sharded: Path) -> None:
    here, there = shard_of(sharded, K), next(path for path in sharded.glob("*.safetensors") if path != shard_of(sharded, K))
    tensor = read_tensors(here)[K]
    change(there, lambda tensors: tensors.update({K: tensor}))
    message = refusal(sharded)
    assert here.name in message and there.name in message and f"{K} is in" in message and "fetch them again" in message


@pytest.mark.parametrize(
    "index", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../b.safetensors"}}', "{"]
)
def test_an_index_that_is_none(sharded: Path, index: str) -> None:
    (sharded / INDEX).write_text(index)
    message = refusal(sharded)
    assert str(sharded / INDEX) in message


def test_an_index_without_tensors_and_a_stray_tensor(sharded: Path) -> None:
    change(shard_of(sharded, K), lambda tensors: tensors.update({"model.layers.9.stray.weight": np.zeros(2, "float32")}))
    assert "\n  1 left over: model.layers.9.stray.weight\n" in refusal(sharded)
    (sharded / INDEX).write_text('{"weight_map": {}}')
    assert "20 missing: model.embed_tokens.weight, " in refusal(sharded)


# ---- folders


def test_no_folder_a_file_and_an_empty_folder(whole: Path, tmp_path: Path) -> None:
    assert "there is no such directory" in refusal(tmp_path / "nowhere")
    assert "this is a file" in refusal(whole / "config.json")
    (tmp_path / "empty").mkdir()
    assert "config.json: not found" in refusal(tmp_path / "empty")
    (whole / WHOLE).unlink()
    assert "no weights here" in refusal(whole)


# ---- config.json


@pytest.mark.parametrize("key", ["hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size", "intermediate_size"])
def test_a_config_without_a_needed_key(whole: Path, key: str) -> None:
    change_json(whole / "config.json", lambda config: config.pop(key))
    message = refusal(whole)
    assert str(whole / "config.json") in message and f"the key {key} is missing" in message


def test_an_unknown_model_type(whole: Path) -> None:
    change_json(whole / "config.json", lambda config: config.update(model_type="mamba"))
    message = refusal(whole)
    assert "model_type is 'mamba'" in message and "llama" in message
    change_json(whole / "config.json", lambda config: config.pop("model_type"))
    assert "the key model_type is missing" in refusal(whole)


def test_code_in_a_models_folder_is_never_run(whole: Path, tmp_path: Path) -> None:
    (whole / "modeling_evil.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')")
    change_json(whole / "config.json", lambda config: config.update(auto_map={"AutoModelForCausalLM": "modeling_evil.Model"}))
    message = refusal(whole)
    assert "auto_map" in message and "code from the model's folder" in message
    assert not (tmp_path / "harm").exists()


def test_a_quantised_model(whole: Path) -> None:
    change_json(whole / "config.json", lambda config: config.update(quantization_config={"quant_method": "gptq", "bits": 4}))
    assert "quantization_config" in refusal(whole)


def test_a_config_of_another_model(whole: Path) -> None:
    sound = (whole / "config.json").read_text()
    change_json(whole / "config.json", lambda config: config.update(vocab_size=97))
    message = refusal(whole)
    assert f"{EMBEDDING} has the shape [96, 32]; config.json makes it [97, 32]" in message and "is vocab_size in config.json" in message
    (whole / "config.json").write_text(sound)
    change_json(whole / "config.json", lambda config: config.update(num_hidden_layers=3))
    message = refusal(whole)
    assert "\n  9 missing: model.layers.2.input_layernorm.weight, " in message and "left over" not in message
    change_json(whole / "config.json", lambda config: config.update(num_hidden_layers=1, intermediate_size=8))
    message = refusal(whole)
    assert "\n  9 left over: model.layers.1.input_layernorm.weight, " in message and "\n  3 of another shape: " in message
    (whole / "config.json").write_text(sound)
    change_json(whole / "config.json", lambda config: config.update(tie_word_embeddings=True))
    assert f"{HEAD} differs from the embedding" in refusal(whole)


# ---- values


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(whole: Path, dtype: str, value: float) -> None:
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        for name in tensors:
            tensors[name] = tensors[name].astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        tensors[K][3, 5:7] = value
        tensors[K][0, 0] = 6e4  # large, and sound

    change(whole / WHOLE, spoil)
    message = refusal(whole)
    assert f"{whole / WHOLE}: {K} holds 2 values that are NaN or infinite" in message


# ---- pickles


def test_a_pickle_needs_the_key_and_still_runs_nothing(whole: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'harm'}",)

    (whole / WHOLE).unlink()
    write_archive(whole / "pytorch_model.bin", pickle.dumps({"weight": Attack()}, 2))
    assert "allow_pickle" in refusal(whole)
    message = refusal(whole, allow_pickle=True)
    assert f"{whole / 'pytorch_model.bin'}: wants to call {os.system.__module__}.system" in message
    assert not (tmp_path / "harm").exists()


# ---- through the commands


def spoil_shard(folder: Path) -> str:
    path = folder / WHOLE
    path.write_bytes(path.read_bytes()[:-40])
    return f"{path}: not a whole safetensors file"


def spoil_config(folder: Path) -> str:
    change_json(folder / "config.json", lambda config: config.pop("hidden_size"))
    return "the key hidden_size is missing"


def spoil_values(folder: Path) -> str:
    change(folder / WHOLE, lambda tensors: tensors[K].fill(np.nan))
    return f"{K} holds 512 values that are NaN or infinite"


def spoil_vocabulary(folder: Path) -> str:
    """Rows of the model's own embedding that the tokenizer reaches beyond."""

    def cut(tensors: dict[str, np.ndarray]) -> None:
        for name in (EMBEDDING, HEAD):
            tensors[name] = tensors[name][:9].copy()

    change(folder / WHOLE, cut)
    change_json(folder / "config.json", lambda config: config.update(vocab_size=9))
    return "the model's vocabulary has 9 ids"


@pytest.mark.parametrize("spoil", [spoil_shard, spoil_config, spoil_values, spoil_vocabulary])
def test_the_command_says_one_line_and_no_traceback(whole: Path, spoil: Callable[[Path], str], run_command, tmp_path: Path) -> None:
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *map(chr, range(97, 123))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(whole / "tokenizer.json"))
    (whole / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "xyz"}\n')
    words = ["predict.py", "--model_name_or_path", whole, "--data_file", rows, "--check"]
    said = spoil(whole)
    code, _, error = run_command(words)
    assert code == 1 and "Traceback" not in error
    [line] = [line for line in error.splitlines() if line.startswith("error: ")]
    assert said in line


def test_weights_of_another_model_are_told_before_the_rows_are_read(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    change_json(whole / "config.json", lambda config: config.update(num_hidden_layers=3))
    (tmp_path / "rows.jsonl").write_text("no JSON\n")
    words = ["--model_name_or_path", str(whole), "--train_dataset_path", str(tmp_path / "rows.jsonl"), "--do_train"]
    for command in ("sft", "reward", "dpo"):
        assert main(command, [*words, "--output_dir", str(tmp_path / "out")]) == 1
        told = capsys.readouterr().err
        assert told.startswith(f"error: {whole}: config.json and the weights do not belong together")
        assert "\n  9 missing: model.layers.2." in told and not (tmp_path / "out").exists()
