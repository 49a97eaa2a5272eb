"""What counts as the same run on a resume, and what a saved model has beside its weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from paddlealign.data.encoding import Limits, encode, encode_prompt
from paddlealign.data.example import Message, Record
from paddlealign.data.template import load_template, template_source
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.recipes.entry import main
from tests.small_runs import MODEL, make_checkpoint, write_rows

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\\n' }}{% endfor %}"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def words(checkpoint: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """A command line of 4 steps with a checkpoint at each second; later keys win."""

    def line(command: str, out: str, *extra: object) -> list[str]:
        rows = write_rows(tmp_path / f"{command}.jsonl", command, "train", 0, 8)
        keys = ["--model_name_or_path", checkpoint, "--train_dataset_path", rows, "--output_dir", tmp_path / out, "--do_train", "true"]
        keys += ["--per_device_train_batch_size", "2", "--logging_steps", "1", "--save_steps", "2", "--max_length", "256"]
        return [str(word) for word in (*keys, "--src_length", "128", *extra)]

    return line


def refusal(command: str, line: list[str], capsys: pytest.CaptureFixture) -> str:
    capsys.readouterr()
    assert main(command, line) == 1
    return capsys.readouterr().err


def test_a_checkpoint_of_another_folder_does_not_go_into_a_run(
    words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert main("sft", words("sft", "a")) == 0
    assert main("sft", words("sft", "b", "--seed", 7)) == 0
    before = (tmp_path / "b" / "run.json").read_bytes()
    said = refusal("sft", words("sft", "b", "--resume_from_checkpoint", tmp_path / "a" / "checkpoint-2"), capsys)
    assert "holds another run than" in said
    assert (tmp_path / "b" / "run.json").read_bytes() == before
    # Into an empty folder it may go, and gives what the first run gave.
    assert main("sft", words("sft", "c", "--resume_from_checkpoint", tmp_path / "a" / "checkpoint-2")) == 0
    assert (tmp_path / "c" / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()


def test_a_moved_checkpoint_knows_its_run(words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main("sft", words("sft", "a")) == 0
    moved = shutil.move(tmp_path / "a" / "checkpoint-2", tmp_path / "moved")
    assert "seed was 42, is 7" in refusal("sft", words("sft", "b", "--resume_from_checkpoint", moved, "--seed", 7), capsys)
    (Path(moved) / "run.json").unlink()
    assert "is damaged: run.json is missing" in refusal("sft", words("sft", "b", "--resume_from_checkpoint", moved), capsys)
    (Path(moved) / "manifest.json").unlink()  # as checkpoints of earlier versions have none
    assert "is missing or damaged" in refusal("sft", words("sft", "b", "--resume_from_checkpoint", moved), capsys)


def test_going_back_sets_later_checkpoints_aside(words: Callable[..., list[str]], tmp_path: Path):
    assert main("sft", words("sft", "a")) == 0
    first = (tmp_path / "a" / "model.safetensors").read_bytes()
    keys = ["--resume_from_checkpoint", tmp_path / "a" / "checkpoint-2", "--save_total_limit", 1]
    assert main("sft", words("sft", "a", *keys)) == 0
    assert sorted(path.name for path in (tmp_path / "a").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-4.abandoned"]
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == first


def test_other_tokens_are_another_run_and_other_dev_rows_are_not(
    words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture
):
    dev = write_rows(tmp_path / "dev.jsonl", "sft", "dev", 0, 3)
    assert main("sft", words("sft", "a", "--do_eval", "true", "--dev_dataset_path", dev)) == 0
    resume = ["--resume_from_checkpoint", tmp_path / "a" / "checkpoint-2"]
    rows = tmp_path / "fewer.jsonl"
    rows.write_text("".join((tmp_path / "sft.jsonl").read_text().splitlines(keepends=True)[:7]))
    assert "sha256 of the train tokens" in refusal("sft", words("sft", "a", *resume, "--train_dataset_path", rows), capsys)
    assert main("sft", words("sft", "a", *resume)) == 0


def test_another_reference_is_another_run(words: Callable[..., list[str]], other: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main("dpo", words("dpo", "a")) == 0
    keys = ["--resume_from_checkpoint", "true", "--ref_model_name_or_path", other]
    assert "sha256 of the reference weights" in refusal("dpo", words("dpo", "a", *keys), capsys)


@pytest.mark.parametrize("choice", ["chat.jinja", "mistral"])
def test_a_saved_model_has_the_tokenizer_and_template_of_its_rows(
    words: Callable[..., list[str]], checkpoint: Path, tmp_path: Path, choice: str
):
    """So predict.py, without a word of the template, asks as the training rows did."""
    tokenizer = shutil.copytree(checkpoint, tmp_path / "tokenizer", ignore=shutil.ignore_patterns("model.safetensors", "config.json"))
    config = json.loads((tokenizer / "tokenizer_config.json").read_text())
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({**config, "mine": True}))
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    chosen = str(tmp_path / choice) if choice.endswith(".jinja") else choice
    keys = ["--tokenizer_name_or_path", tokenizer, "--chat_template", chosen]
    assert main("sft", words("sft", "a", *keys)) == 0
    for folder in (tmp_path / "a", tmp_path / "a" / "checkpoint-4"):
        assert json.loads((folder / "tokenizer_config.json").read_text())["mine"] is True
        assert (folder / "chat_template.jinja").read_text() == template_source(chosen)
        saved, record = Tokenizer.load(folder), Record((Message("user", "Hello?"),), ("Hi.",), False, "r:1")
        trained = encode(record, saved, load_template(saved, chosen), Limits(1000)).example.prompt_ids
        assert encode_prompt(record, saved, load_template(saved)).ids.tolist() == trained.tolist()
        assert (folder / "generation_config.json").read_bytes() == (checkpoint / "generation_config.json").read_bytes()


def test_an_output_dir_that_cannot_be_written_is_told_before_anything_is_read(
    words: Callable[..., list[str]], capsys: pytest.CaptureFixture
):
    said = refusal("sft", words("sft", "a", "--output_dir", "/proc/nowhere/out"), capsys)
    assert said.startswith("error: output_dir: /proc/nowhere/out cannot be written")


def test_a_run_cannot_be_resumed_past_its_end(words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main("sft", words("sft", "a")) == 0
    before = (tmp_path / "a" / "model.safetensors").read_bytes()
    said = refusal("sft", words("sft", "a", "--resume_from_checkpoint", "true", "--max_steps", 3), capsys)
    assert "the run would end at step 3" in said
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == before


def test_check_tells_what_a_start_would_meet(words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main("sft", words("sft", "a")) == 0
    assert main("sft", words("sft", "a", "--check", "true")) == 0
    assert "a start would be refused" in capsys.readouterr().out
    resume = ["--resume_from_checkpoint", "true", "--check", "true"]
    assert main("sft", words("sft", "a", *resume)) == 0
    assert "would go on from" in capsys.readouterr().out
    assert "seed was 42, is 7" in refusal("sft", words("sft", "a", *resume, "--seed", 7), capsys)


def test_a_reference_of_a_smaller_vocabulary_is_refused(words: Callable[..., list[str]], capsys: pytest.CaptureFixture):
    said = refusal("dpo", words("dpo", "a", "--ref_model_name_or_path", MODEL), capsys)
    assert said.startswith("error: ref_model_name_or_path: the tokenizer in") and "the model has 96 tokens" in said
