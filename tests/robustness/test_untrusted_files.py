"""Files of a model, a tokenizer or a data set may be anyone's: too large, too deep, or made to run, read or write what is not theirs."""

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paddlealign.arguments.model_files import read_json_object
from paddlealign.arguments.parsing import parse
from paddlealign.arguments.paths import check_paths
from paddlealign.data.records import read_records
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.models.config import read_config
from paddlealign.models.pickle_files import read_pickle
from paddlealign.models.weight_files import find_tensors
from paddlealign.models.weights import load_model
from paddlealign.training.checkpoint import read_state

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"
TOKENIZER = GOLDEN / "tokenizers" / "qwen2"


def refusal(read: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as refused:
        read()
    return str(refused.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with a tokenizer."""
    shutil.copytree(GOLDEN / "llama2_gqa", tmp_path / "m")
    return shutil.copytree(TOKENIZER, tmp_path / "m", dirs_exist_ok=True, ignore=shutil.ignore_patterns("config.json"))


READERS: dict[str, Callable[[Path], Any]] = {
    "config.json": read_config,
    "generation_config.json": Tokenizer.load,
    "tokenizer.json": Tokenizer.load,
    "tokenizer_config.json": Tokenizer.load,
    "special_tokens_map.json": Tokenizer.load,
    "chat_template.jinja": Tokenizer.load,
    "model.safetensors.index.json": lambda folder: find_tensors(folder, allow_pickle=False),
}


# ---- size


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_a_gigabyte_is_refused_before_it_fills_the_memory(name: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with open(folder / name, "wb") as file:
        file.truncate(1_000_000_000)  # a hole: it takes no room on the disk
    message = refusal(lambda: READERS[name](folder))
    assert message.startswith(f"{folder / name}: has 1,000,000,000 bytes, and no such file needs ")


def test_a_tokenizer_model_of_a_gigabyte_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "tokenizer.model", "wb") as file:
        file.truncate(1_000_000_000)
    assert "has 1,000,000,000 bytes" in refusal(lambda: Tokenizer.load(tmp_path))


# ---- depth, and what JSON readers disagree about


@pytest.mark.parametrize("depth", [101, 900, 10_000])
@pytest.mark.parametrize("name", [name for name in READERS if name.endswith(".json")])
@pytest.mark.parametrize("kind", ["[]", "{}"])
def test_json_that_is_nested_deeply_is_refused(name: str, kind: str, depth: int, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    begin, end = ("[", "]") if kind == "[]" else ('{"a": ', "}")
    (folder / name).write_text('{"model": ' + begin * depth + "1" + end * depth + "}")
    assert f"{folder / name}: not valid JSON (nested more than 100 deep)" in refusal(lambda: READERS[name](folder))


def test_what_is_nested_less_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model": ' + "[" * 100 + "]" * 100 + "}")
    assert read_json_object(tmp_path / "config.json").keys() == {"model"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"hidden_size": 32, "hidden_size": 64}', 'the key "hidden_size" stands twice'),
        ('{"a": {"b": 1, "b": 1}}', 'the key "b" stands twice'),
        ('{"rope_theta": 1' + "0" * 309 + "}", "the number 10000000000000000000... has 310 digits"),
        ('{"hidden_size": 1' + "0" * 9000 + "}", "has 9,001 digits"),
        ('{"hidden_size": }', "line 1, column 17"),
    ],
)
def test_json_that_readers_take_differently_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    message = refusal(lambda: read_config(tmp_path))
    assert said in message and len(message) < 400


def test_a_long_value_is_cut_short_in_the_message(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "strange": "x" * 100_000}))
    assert len(refusal(lambda: read_config(folder))) < 600


@pytest.mark.parametrize("shape", [[0, 2**70], [2**70, 0], [2**40, 2**40]])
def test_a_shape_beyond_all_bounds_in_a_header(shape: list[int], folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = {**json.loads(content[8 : 8 + length]), "huge": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    assert f"{path}: not a whole safetensors file" in refusal(lambda: load_model(folder, "float32"))


# ---- paths


@pytest.mark.parametrize("file", ["../other/model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", ".", ""])
def test_an_index_cannot_name_a_file_elsewhere(file: str, folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "other")
    shutil.copytree(folder, folder / "sub")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": file}}))
    message = refusal(lambda: find_tensors(folder, allow_pickle=False))
    assert "names of files beside it" in message or "not found" in message


def test_the_links_of_a_download_cache_are_followed(folder: Path) -> None:
    """A hub's cache keeps the files by their hashes, and the model's folder has links to them."""
    blobs, snapshot = folder.parent / "blobs", folder.parent / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, path in enumerate(path for path in folder.iterdir() if path.is_file()):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / str(number))
    assert load_model(snapshot, "float32").config.num_layers == 2
    assert Tokenizer.load(snapshot).size > 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"best_step": "../../elsewhere"}, "best_step is "),
        ({"step": "5"}, "step is "),
        ({"step": True}, "step is true"),
        ({"window": {"values": 1}}, "missing"),
    ],
)
def test_a_checkpoints_state_holds_numbers_alone(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text(json.dumps({"step": 5, **values}))
    with pytest.raises(TypeError, match=said):
        read_state(tmp_path)


# ---- archives and pickles


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = b"\0" * 30_000_000
    for name in ("byteorder", "data.pkl"):
        members = {"a/data.pkl": pickle.dumps({}, 2), f"a/{name}": bomb}
        assert "compressed" in refusal(lambda: read_pickle(archive(tmp_path / "a.bin", members, zipfile.ZIP_DEFLATED)))  # noqa: B023
    assert "byteorder would have 30,000,000 bytes" in refusal(
        lambda: read_pickle(archive(tmp_path / "b.bin", {"a/data.pkl": pickle.dumps({}, 2), "a/byteorder": bomb}))
    )


def test_a_member_that_says_it_is_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.bin", {"a/data.pkl": b"12345"})
    directory = path.read_bytes().rindex(b"PK\x01\x02")
    content = bytearray(path.read_bytes())
    content[directory + 20 : directory + 28] = (2**32 - 2).to_bytes(4, "little") * 2
    path.write_bytes(bytes(content))
    assert "data.pkl would have 4,294,967,294 bytes" in refusal(lambda: read_pickle(path))


def test_names_in_an_archive_are_no_paths(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    path = archive(tmp_path / "inside" / "a.bin", {"../data.pkl": pickle.dumps({}, 2), "../../escaped": b"x", "/escaped": b"x"})
    refusal(lambda: read_pickle(path))
    assert sorted(it.name for it in tmp_path.rglob("*")) == ["a.bin", "inside"]


class Attack:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", ["rows.pkl", "rows.pt", "rows.bin", "rows.npy", "rows.npz", "rows.pdparams", "rows.zip", "rows.tar.gz"])
def test_pickles_and_archives_are_refused_as_data_by_name(name: str, folder: Path, tmp_path: Path) -> None:
    data = tmp_path / name
    data.write_bytes(pickle.dumps(Attack(tmp_path / "harm")))
    words = ["--model_name_or_path", str(folder), "--output_dir", str(tmp_path / "out"), "--do_train", "true"]
    message = refusal(lambda: check_paths(parse("sft", [*words, "--train_dataset_path", str(data)])))
    assert f"train_dataset_path: {data} is a" in message and "never opened as data" in message
    predicted = ["--model_name_or_path", str(folder), "--data_file", str(data), "--output_file", str(tmp_path / "o.jsonl")]
    assert f"data_file: {data} is a" in refusal(lambda: check_paths(parse("predict", predicted)))
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv", "rows.parquet", "rows.arrow", "rows.jsonl.gz"])
def test_a_pickle_under_another_name_is_not_opened_either(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Attack(tmp_path / "harm"), 4))
    assert str(tmp_path / name) in refusal(lambda: read_records([tmp_path / name], "sft"))
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model_state.pdparams", "model.pt"])
def test_pickled_weights_are_not_opened(name: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Attack(folder / "harm")))
    message = refusal(lambda: load_model(folder, "float32"))
    assert name in message
    if name.endswith(".bin"):
        assert f"paddlealign.export --model_name_or_path {folder} --allow_pickle true --output_dir" in message
    assert not (folder / "harm").exists()


# ---- code


CODE_KEYS: Sequence[tuple[str, Any]] = (
    ("auto_map", {"AutoModelForCausalLM": "modeling_evil.Model"}),
    ("auto_map", {}),
    ("custom_pipelines", {"x": {"impl": "evil.Pipeline"}}),
    ("trust_remote_code", True),
)


@pytest.mark.parametrize(("key", "value"), CODE_KEYS)
def test_code_of_a_model_is_never_asked_for(key: str, value: Any, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    (folder / "modeling_evil.py").write_text(f"open({str(folder / 'harm')!r}, 'w')")
    assert key in refusal(lambda: load_model(folder, "float32"))
    assert not (folder / "harm").exists()


def test_code_of_a_tokenizer_is_never_run(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["tokenization_evil.Tokenizer", None]}, "tokenizer_class": "EvilTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "tokenization_evil.py").write_text(f"open({str(folder / 'harm')!r}, 'w')")
    Tokenizer.load(folder)  # from tokenizer.json, as it lies
    assert not (folder / "harm").exists()


@pytest.mark.parametrize(
    "model_type", ["gpt2", "llama4", "deepseek_v3", "gemma2", "qwen2_moe", "mixtral", "LLAMA", " llama", ["llama"], None]
)
def test_a_model_that_is_not_supported_is_refused_by_name(model_type: Any, folder: Path) -> None:
    """Its weights may well have LLaMA's names and shapes: it is not loaded as one."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    message = refusal(lambda: load_model(folder, "float32"))
    assert f"model_type is {model_type!r}. Supported: " in message


@pytest.mark.parametrize("name", ["LlamaForQuestionAnswering", "Gemma2ForCausalLM", "EvilForCausalLM"])
def test_an_architecture_that_is_not_supported_is_refused_by_name(name: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [name]}))
    assert f"architectures names {name}. Supported here: " in refusal(lambda: load_model(folder, "float32"))


# ---- tokenizer and embedding


def test_a_tokenizer_with_more_tokens_than_the_embedding_is_refused() -> None:
    from paddlealign.recipes.rows import check_vocabulary
    from tests.small_runs import examples

    highest = max(int(ids.max()) for it in examples(1) for ids in (it.prompt_ids, it.responses[0].token_ids))
    rows: Any = SimpleNamespace(highest_id=highest, tokenizer=SimpleNamespace(folder=TOKENIZER))
    check_vocabulary(rows, highest + 1, "model_name_or_path")
    message = refusal(lambda: check_vocabulary(rows, highest, "model_name_or_path"))
    assert f"gives token {highest}, but the model has {highest} tokens" in message and "resize_vocab" in message
