"""Training with tokens that the model has no rows for: refused, or its vocabulary grows, through checkpoints and resumes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paddlealign.models.parameters import EMBEDDING
from paddlealign.models.tensor_files import read_tensors
from paddlealign.recipes.entry import main
from tests.small_runs import make_checkpoint, write_rows

ADDED = ("<|added|>", "<|unused|>")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 1,000 tokens, whose tokenizer got two more."""
    folder = make_checkpoint(tmp_path_factory.mktemp("model"))
    (folder / "added_tokens.json").write_text(json.dumps({text: 1000 + index for index, text in enumerate(ADDED)}))
    return folder


@pytest.fixture
def words(checkpoint: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """A command line of 4 steps with a checkpoint at the second, over rows with one of the added tokens in them; later keys win."""

    def line(command: str, out: str, *extra: object) -> list[str]:
        rows = write_rows(tmp_path / f"{command}.jsonl", command, "train", 0, 8)
        rows.write_text(rows.read_text("utf-8").replace('": "', f'": "{ADDED[0]} '), encoding="utf-8")
        keys = ["--model_name_or_path", checkpoint, "--train_dataset_path", rows, "--output_dir", tmp_path / out, "--do_train", "true"]
        keys += ["--per_device_train_batch_size", "2", "--logging_steps", "1", "--save_steps", "2", "--max_length", "256"]
        return [str(word) for word in (*keys, "--src_length", "128", "--learning_rate", "1e-3", *extra)]

    return line


@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_without_the_key_it_is_named(command: str, words: Callable[..., list[str]], capsys: pytest.CaptureFixture) -> None:
    assert main(command, words(command, "out")) == 1
    error = capsys.readouterr().err
    assert "gives token 1000, but the model has 1000 tokens" in error and "set resize_vocab to true" in error


@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_the_vocabulary_grows_and_a_resume_goes_on_with_it(
    command: str, words: Callable[..., list[str]], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(command, words(command, "out", "--resize_vocab")) == 0
    assert "vocabulary: 1000 tokens grow to the tokenizer's 1002" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 1002
    trained = read_tensors(tmp_path / "out" / "model.safetensors")[EMBEDDING]
    assert trained.shape == (1002, 32)
    mean = read_tensors(checkpoint / "model.safetensors")[EMBEDDING].astype("float64").mean(0)
    assert np.abs(trained[1000] - mean).max() > 1e-4  # it stood in the rows, and was learnt
    # From the checkpoint in the middle the run ends in the same weights.
    line = words(command, "again", "--resize_vocab", "--resume_from_checkpoint", tmp_path / "out" / "checkpoint-2")
    assert main(command, line) == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "out" / "model.safetensors").read_bytes()
    # What was saved needs the key no more.
    words_after = words(command, "after", "--model_name_or_path", tmp_path / "out", "--max_steps", "1")
    assert main(command, words_after) == 0


def test_the_references_vocabulary_grows_with_the_policys(
    words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """At the first step policy and reference are one model: the loss is ln 2, with the cache and without."""
    for mode in ("cached", "frozen"):
        assert main("dpo", words("dpo", mode, "--resize_vocab", "--reference_mode", mode, "--max_steps", "1")) == 0
        first = json.loads((tmp_path / mode / "metrics.jsonl").read_text().splitlines()[0])
        assert abs(first["loss"] - np.log(2)) < 1e-6
    # Log-probs of the model as it was are not taken for those of the grown one: the tokens are the same, the softmax is not.
    plain = write_rows(tmp_path / "plain.jsonl", "dpo", "train", 0, 8)
    shared = ["--train_dataset_path", plain, "--max_steps", "1", "--reference_cache_dir", tmp_path / "cache"]
    assert main("dpo", words("dpo", "ungrown", *shared)) == 0
    assert main("dpo", words("dpo", "grown", "--resize_vocab", *shared)) == 0
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 2
