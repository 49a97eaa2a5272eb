"""Reward models through the commands: trained on pairs, resumed, scoring a file, and refused where a language model is needed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paddlealign.models.config import read_config
from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import load_model
from paddlealign.recipes.entry import main
from paddlealign.training.run_log import read_metrics
from tests.small_runs import make_checkpoint, write_rows

LENGTHS = ["--max_length", "256", "--src_length", "128"]
STEPS = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pairs to train on, every second with a margin; dev pairs; the dev pairs' answers, each alone and in lists."""
    folder = tmp_path_factory.mktemp("rows")
    train, dev = (write_rows(folder / f"{split}.jsonl", "dpo", split, 0, count) for split, count in (("train", 12), ("dev", 5)))
    lines = [json.loads(line) for line in train.read_text(encoding="utf-8").splitlines()]
    train.write_text("\n".join(json.dumps({**line, **({"margin": 0.5} if index % 2 else {})}) for index, line in enumerate(lines)))
    pairs = [json.loads(line) for line in dev.read_text(encoding="utf-8").splitlines()]
    answers = [{"id": index, "prompt": pair["prompt"], "response": pair["chosen"]} for index, pair in enumerate(pairs)]
    answers.append({"src": pairs[0]["prompt"], "output": [pairs[0]["rejected"], pairs[0]["chosen"]]})
    answers.append({"src": pairs[1]["prompt"], "tgt": pairs[1]["rejected"]})
    answers.append({"prompt": "x" * 2000, "response": "too long"})
    (folder / "answers.jsonl").write_text("\n".join(json.dumps(line) for line in answers))
    return {"train": train, "dev": dev, "answers": folder / "answers.jsonl"}


@pytest.fixture(scope="module")
def words(checkpoint: Path, rows: dict[str, Path]) -> Callable[..., list[str]]:
    """A command line of 12 steps with a checkpoint at each fourth; later keys win."""

    def line(output: Path, *extra: object) -> list[str]:
        keys = ["--model_name_or_path", checkpoint, "--train_dataset_path", rows["train"], "--dev_dataset_path", rows["dev"], *LENGTHS]
        keys += ["--output_dir", output, "--do_train", "true", "--do_eval", "true", "--max_steps", STEPS, "--learning_rate", "3e-3"]
        keys += ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2", "--logging_steps", "1", "--save_steps", "4"]
        keys += ["--center_rewards_coefficient", "0.01"]
        return [str(word) for word in (*keys, *extra)]

    return line


@pytest.fixture(scope="module")
def trained(words: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("reward") / "out"
    assert main("reward", words(output)) == 0
    return output


def numbers(output: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if "per_second" not in key and key != "memory_gib"} for line in read_metrics(output)]


def scores(model: Path, data: Path, output: Path, *extra: str) -> list[dict]:
    keys = ["--model_name_or_path", model, "--data_file", data, "--output_file", output, "--max_length", "256", *extra]
    assert main("evaluate_rewards", [str(key) for key in keys]) == 0
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def test_it_learns_and_logs(trained: Path) -> None:
    lines = numbers(trained)
    assert len(lines) == STEPS + 1 and "eval_accuracy" in lines[-1]
    assert lines[STEPS - 1]["loss"] < 0.6 * lines[0]["loss"] and lines[STEPS - 1]["margin"] > lines[0]["margin"] + 0.5
    for line in lines[:STEPS]:
        assert 0 <= line["accuracy"] <= 1 and line["mean_squared_reward"] >= line["mean_reward"] ** 2 - 1e-6
        assert line["mean_squared_reward"] >= (line["margin"] / 2) ** 2 - 1e-6
    assert (trained / "curves.png").exists()


def test_what_is_saved_is_a_classifier_with_one_label(trained: Path, checkpoint: Path) -> None:
    config, tensors = json.loads((trained / "config.json").read_text()), read_tensors(trained / "model.safetensors")
    before = read_tensors(checkpoint / "model.safetensors")
    assert config["architectures"] == ["LlamaForSequenceClassification"] and len(config["id2label"]) == 1
    assert tensors.keys() == (before.keys() - {"lm_head.weight"}) | {"score.weight"} and tensors["score.weight"].shape == (1, 32)
    # transformers reads the last token that is not padding: an end token that pads would hide itself.
    tokenizer = json.loads((trained / "tokenizer_config.json").read_text())
    assert (tokenizer["pad_token"], config["pad_token_id"]) == ("<unk>", 0)
    assert {**json.loads((checkpoint / "tokenizer_config.json").read_text()), "pad_token": "<unk>"} == tokenizer
    assert (trained / "tokenizer.model").read_bytes() == (checkpoint / "tokenizer.model").read_bytes()


def test_a_resumed_run_is_the_run(trained: Path, words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(trained / "checkpoint-4", cut / "checkpoint-4")
    for name in ("run.json", "metrics.jsonl"):
        shutil.copy(trained / name, cut / name)
    assert main("reward", words(cut, "--resume_from_checkpoint", "true")) == 0
    assert "resumed from" in capsys.readouterr().out
    assert numbers(cut) == numbers(trained)
    for name in ("model.safetensors", "config.json", f"checkpoint-{STEPS}/optimizer.safetensors"):
        assert (cut / name).read_bytes() == (trained / name).read_bytes(), name
    # Other margins are another run.
    moved = tmp_path / "moved.jsonl"
    lines = [json.loads(line) for line in Path(words(cut)[3]).read_text(encoding="utf-8").splitlines()]
    moved.write_text("\n".join(json.dumps({**line, "margin": 0.25}) for line in lines))
    assert main("reward", words(cut, "--resume_from_checkpoint", "true", "--train_dataset_path", moved)) == 1
    assert "sha256 of the margins" in capsys.readouterr().err


def test_splits_of_a_step_margins_and_centring(trained: Path, words: Callable[..., list[str]], tmp_path: Path, checkpoint: Path) -> None:
    """Other micro-batches give the same run; another margin, coefficient or seed of the head gives another."""
    first = numbers(trained)[:2]
    short = ["--max_steps", "2", "--lr_scheduler_type", "constant", "--save_strategy", "no", "--do_eval", "false"]
    base = tmp_path / "base"
    assert main("reward", words(base, *short)) == 0
    assert numbers(base)[0] == pytest.approx({**first[0]}, rel=1e-6)
    split = tmp_path / "split"
    assert main("reward", words(split, *short, "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "1")) == 0
    for line, wanted in zip(numbers(split), numbers(base), strict=True):
        del line["padding"], wanted["padding"]  # of rows that are rounded up each
        assert line == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    plain = write_rows(tmp_path / "plain.jsonl", "dpo", "train", 0, 12)
    for name, keys in {
        "margins": ["--train_dataset_path", plain],
        "coefficient": ["--center_rewards_coefficient", "0.5"],
        "seed": ["--seed", "43"],
    }.items():
        assert main("reward", words(tmp_path / name, *short, *keys)) == 0
        assert abs(numbers(tmp_path / name)[0]["loss"] - numbers(base)[0]["loss"]) > 1e-3, name


def test_the_best_checkpoint_is_loaded(words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """By the lowest margin, so that it is not the last."""
    keys = [
        "--load_best_model_at_end",
        "--metric_for_best_model",
        "margin",
        "--greater_is_better",
        "false",
        "--evaluation_strategy",
        "steps",
    ]
    assert main("reward", words(tmp_path / "out", *keys, "--eval_steps", "4")) == 0
    state = json.loads((tmp_path / "out" / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    margins = {line["step"]: line["eval_margin"] for line in numbers(tmp_path / "out") if "eval_margin" in line}
    assert state["best_step"] == min(margins, key=margins.__getitem__) and len(margins) == 3
    best = tmp_path / "out" / f"checkpoint-{state['best_step']}" / "model.safetensors"
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == best.read_bytes()


def test_scores_of_pairs_are_those_of_the_evaluation(
    trained: Path, rows: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture, words: Callable[..., list[str]]
) -> None:
    found = scores(trained, rows["dev"], tmp_path / "scores.jsonl")
    said = capsys.readouterr().out
    pairs = [json.loads(line) for line in rows["dev"].read_text(encoding="utf-8").splitlines()]
    assert [{key: line[key] for key in pair} for line, pair in zip(found, pairs, strict=True)] == pairs
    table = np.array([[line["chosen_score"], line["rejected_score"]] for line in found])
    evaluation = numbers(trained)[-1]
    assert (table[:, 0] - table[:, 1]).mean() == pytest.approx(evaluation["eval_margin"], abs=1e-5)
    assert table.mean() == pytest.approx(evaluation["eval_mean_reward"], abs=1e-5)
    accuracy = (table[:, 0] > table[:, 1]).mean()
    assert accuracy == pytest.approx(evaluation["eval_accuracy"]) and f"5 pairs: {accuracy:.1%} ranked right" in said
    # The batch size changes nothing, and a run that only evaluates says the same of the saved model.
    again = scores(trained, rows["dev"], tmp_path / "again.jsonl", "--batch_size", "1")
    assert np.abs(np.array([[line["chosen_score"], line["rejected_score"]] for line in again]) - table).max() <= 2e-6
    alone = ["--do_train", "false", "--model_name_or_path", str(trained)]
    assert main("reward", words(tmp_path / "alone", *alone)) == 0
    (line,) = numbers(tmp_path / "alone")
    assert line["eval_loss"] == pytest.approx(evaluation["eval_loss"], abs=1e-6)
    assert line["eval_margin"] == pytest.approx(evaluation["eval_margin"], abs=1e-6)


def test_answers_are_scored_alone_and_in_lists(trained: Path, rows: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pairs = scores(trained, rows["dev"], tmp_path / "pairs.jsonl")
    capsys.readouterr()
    found = scores(trained, rows["answers"], tmp_path / "answers.jsonl")
    said = capsys.readouterr().out
    assert "8 of 9 records (8 rows) from 1 file" in said and "left out 1: too long" in said
    wanted = [pair["chosen_score"] for pair in pairs] + [pairs[0]["rejected_score"], pairs[0]["chosen_score"], pairs[1]["rejected_score"]]
    assert [line["score"] for line in found] == pytest.approx(wanted, abs=2e-6)
    assert [line.get("id") for line in found] == [0, 1, 2, 3, 4, None, None, None]
    assert [line["output"] for line in found[5:7]] == [pairs[0]["rejected"], pairs[0]["chosen"]]


def test_training_goes_on_from_a_reward_model(trained: Path, words: Callable[..., list[str]], tmp_path: Path) -> None:
    keys = ["--model_name_or_path", str(trained), "--max_steps", "1", "--save_strategy", "no"]
    assert main("reward", words(tmp_path / "more", *keys)) == 0
    saved = [json.loads((folder / "config.json").read_text()) for folder in (trained, tmp_path / "more")]
    assert saved[0] == saved[1]
    # The first rate of a schedule is its peak: one step from the saved head, not from a new one.
    ours, before = (read_tensors(folder / "model.safetensors")["score.weight"] for folder in (tmp_path / "more", trained))
    assert 0 < np.abs(ours - before).max() < 0.01


def test_check_tells_and_writes_nothing(words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main("reward", words(tmp_path / "out", "--check")) == 0
    said = capsys.readouterr().out
    assert "score head: new, drawn with a standard deviation of 0.1741" in said and "6 of 12 pairs have a margin" in said
    assert "pairs ranked right" in said and "check passed" in said and "pads with <unk>" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("reward_goes", ["model_name_or_path", "ref_model_name_or_path"])
@pytest.mark.parametrize("command", ["sft", "dpo", "predict"])
def test_a_reward_model_is_refused_where_tokens_are_needed(
    command: str, reward_goes: str, trained: Path, checkpoint: Path, rows: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if command != "dpo" and reward_goes != "model_name_or_path":
        return
    models = {"model_name_or_path": checkpoint, reward_goes: trained}
    keys = [str(word) for key, folder in models.items() for word in (f"--{key}", folder)]
    keys += ["--data_file", str(rows["dev"])] if command == "predict" else ["--train_dataset_path", str(rows["train"]), "--do_train"]
    keys += [] if command == "predict" else ["--output_dir", str(tmp_path / "out"), *LENGTHS]
    assert main(command, keys) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {reward_goes}: this is a reward model (LlamaForSequenceClassification)") and told.count("\n") == 1


def test_a_language_model_scores_nothing(
    checkpoint: Path, rows: dict[str, Path], words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    told = "model_name_or_path: this is a language model (LlamaForCausalLM), which has no score head."
    assert main("reward", words(tmp_path / "out", "--do_train", "false")) == 1
    assert told in capsys.readouterr().err
    assert main("evaluate_rewards", ["--model_name_or_path", str(checkpoint), "--data_file", str(rows["dev"])]) == 1
    assert told in capsys.readouterr().err


def test_what_evaluate_refuses(trained: Path, rows: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def refused(data: Path, output: str = "new.jsonl") -> str:
        keys = ["--model_name_or_path", str(trained), "--data_file", str(data), "--output_file", str(tmp_path / output)]
        assert main("evaluate_rewards", keys) == 1
        return capsys.readouterr().err

    (tmp_path / "there.jsonl").write_text("mine")
    assert "exists already" in refused(rows["dev"], "there.jsonl") and (tmp_path / "there.jsonl").read_text() == "mine"
    taken = tmp_path / "taken.jsonl"
    taken.write_text(json.dumps({"prompt": "q", "response": "a", "score": 1}))
    assert f'{taken}:1: the row has a key "score" already' in refused(taken)
    taken.write_text(json.dumps({"prompt": "q", "response": "a", "output": "b"}))
    assert "both response and output are there" in refused(taken)
    taken.write_text(json.dumps({"prompt": "q"}))
    assert 'in "response" or "output"' in refused(taken)
    assert not (tmp_path / "new.jsonl").exists()


def test_export_writes_a_reward_model_again(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    keys = ["--model_name_or_path", str(trained), "--output_dir", str(tmp_path / "out"), "--dtype", "bfloat16"]
    assert main("export", keys) == 0
    assert read_config(tmp_path / "out").head == "score"
    exact, rounded = (load_model(folder, "float32").score.weight.numpy() for folder in (trained, tmp_path / "out"))
    assert 0 < np.abs(exact - rounded).max() <= 2**-8 * np.abs(exact).max()
    assert main("export", [*keys[:3], str(tmp_path / "other"), "--format", "paddlenlp"]) == 1
    assert "has no reward model of this form" in capsys.readouterr().err
