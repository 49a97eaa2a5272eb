"""What a training command answers to a mistake: exit code 1, one ``error:`` that can be acted on, no traceback, nothing written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from paddlealign.recipes.entry import main
from tests.small_runs import MODEL, make_checkpoint, write_rows


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def words(checkpoint: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """A command line for 5 rows in 3 steps, with later keys in place of earlier ones."""
    train = write_rows(tmp_path / "train.jsonl", "sft", "train", 0, 5)
    keys = ["--model_name_or_path", str(checkpoint), "--train_dataset_path", str(train), "--output_dir", str(tmp_path / "out")]
    keys += ["--do_train", "--per_device_train_batch_size", "2", "--logging_steps", "1", "--save_steps", "2", "--learning_rate", "1e-3"]
    return lambda *extra: [*keys, "--max_length", "256", "--src_length", "128", *map(str, extra)]


@pytest.fixture
def refused(words: Callable[..., list[str]], capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Run a command that must be refused; its error."""

    def run(*extra: object, command: str = "sft") -> str:
        capsys.readouterr()
        assert main(command, words(*extra)) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("error: ") == 1 and "Traceback" not in error
        return error

    return run


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_with_a_run_in_it(words: Callable[..., list[str]], refused: Callable[..., str], tmp_path: Path):
    assert main("sft", words()) == 0
    before = files(tmp_path)
    assert f"output_dir: {tmp_path / 'out'} already holds a run" in refused()
    message = refused("--resume_from_checkpoint", "true", "--learning_rate", "2e-3")
    assert "learning_rate was 0.001, is 0.002" in message and "checkpoint-2" in message
    assert "seed was 42, is 1" in refused("--resume_from_checkpoint", tmp_path / "out" / "checkpoint-2", "--seed", "1")
    assert "rows of a step was 2, is 4" in refused("--resume_from_checkpoint", "true", "--gradient_accumulation_steps", "2")
    assert "is not a checkpoint" in refused("--resume_from_checkpoint", tmp_path / "out")
    write_rows(tmp_path / "other.jsonl", "sft", "train", 1, 5)
    assert "sha256 of the train tokens was" in refused("--resume_from_checkpoint", "true", "--train_dataset_path", tmp_path / "other.jsonl")
    (tmp_path / "other.jsonl").unlink()
    after = files(tmp_path)
    assert before.items() <= after.items()  # of other rows what was encoded is kept, for a start that is not refused
    assert all(name.startswith("out/encoded/") for name in after.keys() - before.keys())

    # Another cut of the same steps, another place for the log and a longer run are no other run.
    free = ["--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "2", "--save_steps", "3", "--num_train_epochs", "2"]
    assert main("sft", words("--resume_from_checkpoint", "true", *free)) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["steps"] == 6


def test_a_run_that_counts_tokens_goes_on_as_one(words: Callable[..., list[str]], refused: Callable[..., str], tmp_path: Path):
    tokens = ["--per_device_train_batch_size", "null", "--tokens_per_batch"]
    assert "both say what a micro-batch holds" in refused("--tokens_per_batch", "100")
    assert main("sft", words(*tokens, "100")) == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["examples"] == 5 and lines[-1]["epoch"] == 1.0 and all(0 <= line["padding"] < 0.15 for line in lines)
    assert "tokens_per_batch was 100, is 101" in refused("--resume_from_checkpoint", "true", *tokens, "101")
    assert "tokens_per_batch was 100, is None" in refused("--resume_from_checkpoint", "true")
    assert main("sft", words("--resume_from_checkpoint", "true", *tokens, "100", "--num_train_epochs", "2")) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["steps"] == 2 * len(lines)


def test_overwriting_is_asked_for(words: Callable[..., list[str]], tmp_path: Path):
    assert main("sft", words()) == 0
    (tmp_path / "out" / "notes.txt").write_text("mine")
    first = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert main("sft", words("--overwrite_output_dir", "--max_steps", "1")) == 0
    second = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert (len(first), len(second)) == (3, 1)
    assert not list((tmp_path / "out").glob("checkpoint-*")) and (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_resume_without_a_run(refused: Callable[..., str], tmp_path: Path):
    assert "holds no run" in refused("--resume_from_checkpoint", "true")
    (tmp_path / "out").mkdir()
    assert "holds no run" in refused("--resume_from_checkpoint", "true")
    assert files(tmp_path / "out") == {}


@pytest.mark.parametrize(
    "row, named",
    [
        ("{", ["bad.jsonl:2"]),
        ('{"src": "a"}', ["bad.jsonl:2", "tgt"]),
        ('{"src": "a", "tgt": 5}', ["bad.jsonl:2", "tgt"]),
        ('["a", "b"]', ["bad.jsonl:2"]),
        ('{"prompt": "a", "chosen": "b", "rejected": "c"}', ["bad.jsonl:2"]),
    ],
)
def test_a_bad_row(refused: Callable[..., str], tmp_path: Path, row: str, named: list[str]):
    (tmp_path / "bad.jsonl").write_text('{"src": "a", "tgt": "b"}\n' + row + "\n")
    message = refused("--train_dataset_path", tmp_path / "bad.jsonl")
    assert all(word in message for word in named), message
    assert not (tmp_path / "out").exists()


def test_sft_rows_for_dpo_and_files_that_are_not_there(refused: Callable[..., str], tmp_path: Path):
    assert "train.jsonl:1" in refused(command="dpo")
    assert "nowhere.jsonl" in refused("--train_dataset_path", tmp_path / "nowhere.jsonl")
    assert "there is no folder" in refused("--model_name_or_path", tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_rows_of_which_none_is_left(refused: Callable[..., str], tmp_path: Path):
    message = refused("--max_length", "4", "--src_length", "2")
    assert "none of 5 rows can be used" in message and "max_length 4" in message
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_another_model(refused: Callable[..., str], checkpoint: Path, tmp_path: Path):
    message = refused("--model_name_or_path", MODEL, "--tokenizer_name_or_path", checkpoint)
    assert "model_name_or_path: the tokenizer in" in message and "the model has 96 tokens" in message
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["encoded"]


def test_through_the_command_itself(words: Callable[..., list[str]], tmp_path: Path, run_command: Callable):
    (tmp_path / "bad.jsonl").write_text('{"src": "a"}\n')
    code, _, err = run_command(["sft_main.py", *words("--train_dataset_path", tmp_path / "bad.jsonl")])
    assert code == 1 and err.startswith("error: ") and "bad.jsonl:1" in err
    assert err.count("error") == 1 and "Traceback" not in err
