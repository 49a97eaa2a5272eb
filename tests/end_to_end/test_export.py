"""``python -m paddlealign.export``, and weights in pytorch_model.bin through every command.

What PaddleNLP makes of an export: tests/parity/test_paddlenlp.py.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import find_weights
from paddlealign.recipes.entry import main
from tests.small_runs import GOLDEN, make_checkpoint, write_rows
from tests.torch_files import as_torch_folder


def export(model: Path, output: Path, *extra: object) -> int:
    return main("export", [str(word) for word in ("--model_name_or_path", model, "--output_dir", output, *extra)])


def stored(folder: Path) -> dict[str, np.ndarray]:
    return {name: array for path in set(find_weights(folder).values()) for name, array in read_tensors(path).items()}


def refusal(capsys: pytest.CaptureFixture) -> str:
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    return error


@pytest.mark.parametrize("name", ["llama1", "llama3", "gpt_neox"])
def test_without_a_wish_the_same_bytes_are_written(name: str, tmp_path: Path) -> None:
    source = shutil.copytree(GOLDEN / name, tmp_path / "source")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (source / file).write_text(f'{{"file": "{file}"}}')
    assert export(source, tmp_path / "out") == 0
    before, after = stored(source), stored(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(after[key].dtype == array.dtype and after[key].tobytes() == array.tobytes() for key, array in before.items())
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == json.loads((source / "config.json").read_text())
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_dtype_shards_and_another_tokenizer(tmp_path: Path) -> None:
    other = tmp_path / "tokenizer"
    other.mkdir()
    (other / "tokenizer.json").write_text('{"other": true}')
    words = ["--dtype", "float16", "--max_shard_size", "30KB", "--tokenizer_name_or_path", other]
    assert export(GOLDEN / "llama1", tmp_path / "out", *words) == 0
    before, after = stored(GOLDEN / "llama1"), stored(tmp_path / "out")
    assert all(np.array_equal(after[key], array.astype("float16")) for key, array in before.items())
    shards = list((tmp_path / "out").glob("model-*.safetensors"))
    assert len(shards) > 1 and all(sum(array.nbytes for array in read_tensors(path).values()) <= 30_000 for path in shards)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float16"
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '{"other": true}'


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = shutil.copytree(GOLDEN / "llama1", tmp_path / "model")
    before = {path: path.read_bytes() for path in model.iterdir()}
    assert export(model, model) == 1
    assert "output_dir" in (said := refusal(capsys)) and "holds a model already (config.json)" in said
    assert {path: path.read_bytes() for path in model.iterdir()} == before
    (tmp_path / "file").touch()
    assert export(model, tmp_path / "file") == 1
    assert "is a file" in refusal(capsys)
    for size in ("0", "5TB", "-1", "5.5GB", "GB"):
        assert export(model, tmp_path / "out", f"--max_shard_size={size}") == 1
        assert f'max_shard_size: "{size}" is not allowed' in refusal(capsys)
    assert export(tmp_path / "nowhere", tmp_path / "out") == 1
    assert "there is no folder" in refusal(capsys)
    assert not (tmp_path / "out").exists()


def test_as_a_module_it_starts_and_ends_like_the_scripts(run_command, tmp_path: Path) -> None:
    words = ["-m", "paddlealign.export", "--model_name_or_path", GOLDEN / "qwen3", "--output_dir", tmp_path / "out"]
    code, out, error = run_command(words)
    assert (code, error) == (0, "") and f"in the layout of huggingface, in {tmp_path / 'out'}" in out
    code, _, error = run_command([*words, "--format", "paddlenlp"], cwd=tmp_path)
    assert code == 1 and "holds a model already" in error
    code, _, error = run_command([*words[:-1], tmp_path / "other", "--format", "paddlenlp"])
    assert code == 1 and error == (
        "error: format: PaddleNLP 3.0.0b4 has no qwen3 model, so it would compute something else. Use format huggingface.\n"
    )


# ---- pytorch_model.bin


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


def test_every_command_reads_a_pickle_only_where_the_key_allows_it(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch = as_torch_folder(checkpoint, tmp_path / "torch", shards=2)
    (tmp_path / "rows.jsonl").write_text('{"src": "How many?"}\n')
    ends = {}
    for command in ("sft", "dpo"):
        rows = write_rows(tmp_path / f"{command}.jsonl", command, "train", 0, 4)
        keys = ["--train_dataset_path", rows, "--do_train", "--max_steps", "1", "--max_length", "256", "--src_length", "128"]
        ends[command] = [*keys, "--output_dir"]
    ends["predict"] = ["--data_file", tmp_path / "rows.jsonl", "--max_length", "3", "--decode_strategy", "greedy_search", "--output_file"]
    ends["export"] = ["--output_dir"]
    for command, keys in ends.items():
        outputs = {}
        for model, extra in ((checkpoint, []), (torch, ["--allow_pickle"])):
            output = tmp_path / f"{command}_{model.name}"
            words = [str(word) for word in ("--model_name_or_path", model, *extra, *keys, output)]
            assert main(command, words) == 0, command
            outputs[model] = output if output.is_file() else output / "model.safetensors"
        assert outputs[checkpoint].read_bytes() == outputs[torch].read_bytes(), command
        capsys.readouterr()
        words = [str(word) for word in ("--model_name_or_path", torch, *keys, tmp_path / "refused")]
        assert main(command, words) == 1
        assert "Set allow_pickle to true" in refusal(capsys)
