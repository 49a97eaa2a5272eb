"""SFT and DPO through the commands, on a tiny model and a few rows of the sample: resumed, split, overfitted, launched."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddlealign.machine import MALLOC_VARIABLES, THREAD_VARIABLES
from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import load_model
from paddlealign.recipes.entry import main
from paddlealign.training.run_folder import list_checkpoints
from paddlealign.training.run_log import read_metrics
from tests.small_runs import ROOT, make_checkpoint, write_rows

LN_2 = float(np.log(2))
LENGTHS = ["--max_length", "256", "--src_length", "128"]


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model of two layers with its tokenizer. Nothing may have written to it when all is over."""
    folder = make_checkpoint(tmp_path_factory.mktemp("model"))
    before = hashes(folder)
    yield folder
    assert hashes(folder) == before


def words(command: str, model: Path, folder: Path, output: Path, *extra: str) -> list[str]:
    """A command line: 11 rows, steps of 4, 4 and 3 of them, 2 epochs; 5 dev rows."""
    train, dev = (folder / f"{command}_{split}.jsonl" for split in ("train", "dev"))
    if not train.exists():
        write_rows(train, command, "train", 0, 11)
        write_rows(dev, command, "dev", 0, 5)
    keys = ["--model_name_or_path", str(model), "--train_dataset_path", str(train), "--dev_dataset_path", str(dev), *LENGTHS]
    keys += ["--output_dir", str(output), "--do_train", "--num_train_epochs", "2", "--learning_rate", "1e-3", "--logging_steps", "1"]
    keys += ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2", "--save_strategy", "no"]
    return [*keys, *extra]


def numbers(output: Path) -> list[dict[str, Any]]:
    """The run log without what a clock decides."""
    return [{key: value for key, value in line.items() if "per_second" not in key and key != "memory_gib"} for line in read_metrics(output)]


@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_resumed_equals_uninterrupted(command: str, checkpoint: Path, tmp_path: Path, run_command: Callable):
    """Cut off after step 4 of 6, in the middle of the second epoch and of a line of the run log, and gone on with."""
    keys = ["--save_strategy", "steps", "--save_steps", "2", "--logging_steps", "3", "--evaluation_strategy", "steps", "--eval_steps", "2"]
    keys += ["--lr_scheduler_type", "cosine", "--warmup_steps", "1", "--weight_decay", "0.1", "--gradient_accumulation_steps", "2"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    code, _, err = run_command([f"{command}_main.py", *words(command, checkpoint, tmp_path, whole, *keys)])
    assert (code, err) == (0, "")
    assert [step for step, _ in list_checkpoints(whole)] == [2, 4, 6]
    assert [line["step"] for line in numbers(whole)] == [2, 3, 4, 6, 6]

    cut.mkdir()
    for name in ("run.json", "metrics.jsonl", "checkpoint-2", "checkpoint-4"):
        copy = shutil.copytree if (whole / name).is_dir() else shutil.copy
        copy(whole / name, cut / name)
    resume = ["--resume_from_checkpoint", "true", "--output_dir", str(cut)]
    code, out, err = run_command([f"{command}_main.py", *words(command, checkpoint, tmp_path, cut, *keys, *resume)])
    assert (code, err) == (0, "")
    assert f"resumed from {cut / 'checkpoint-4'}: 4 of 6 steps done" in out
    assert numbers(cut) == numbers(whole)
    for name in ("model.safetensors", "checkpoint-6/model.safetensors", "checkpoint-6/optimizer.safetensors"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    states = [json.loads((folder / "checkpoint-6" / "trainer_state.json").read_text()) for folder in (cut, whole)]
    assert states[0] == states[1] and states[0]["examples"] == 22 and states[0]["epoch"] == 2.0


def test_overfitted_rows_come_back_and_dpo_goes_on_from_there(checkpoint: Path, tmp_path: Path, run_command: Callable):
    rows, tuned, predicted = tmp_path / "eight.jsonl", tmp_path / "sft", tmp_path / "predicted.jsonl"
    write_rows(rows, "sft", "train", 0, 8)
    keys = ["--train_dataset_path", str(rows), "--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1"]
    keys += ["--max_steps", "90", "--learning_rate", "2e-2", "--logging_steps", "30"]
    in_process("sft", words("sft", checkpoint, tmp_path, tuned, *keys))
    asked = ["--model_name_or_path", tuned, "--data_file", rows, "--output_file", predicted, "--decode_strategy", "greedy_search"]
    code, _, err = run_command(["predict.py", *asked, "--max_length", "96", "--src_length", "128", "--batch_size", "8"])
    assert (code, err) == (0, "")
    answered = [json.loads(line) for line in predicted.read_text(encoding="utf-8").splitlines()]
    assert len(answered) == 8 and len({row["tgt"] for row in answered}) == 8
    assert [row["output"] for row in answered] == [row["tgt"] for row in answered]

    before = hashes(tuned)
    aligned = tmp_path / "dpo"
    in_process("dpo", words("dpo", tuned, tmp_path, aligned))
    lines = numbers(aligned)
    assert lines[0]["loss"] == pytest.approx(LN_2, abs=1e-5) and abs(lines[0]["rewards/margins"]) <= 1e-4
    assert lines[-1]["rewards/margins"] > 0.05 and lines[-1]["loss"] < LN_2 - 0.02
    for line in lines:
        assert line["rewards/margins"] == pytest.approx(line["rewards/chosen"] - line["rewards/rejected"], abs=1e-4)
    assert hashes(tuned) == before


def in_process(command: str, keys: list[str]) -> None:
    assert main(command, keys) == 0


@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_every_split_of_a_step_gives_the_same_run(command: str, checkpoint: Path, tmp_path: Path):
    outputs = []
    for size, accumulation in ((8, 1), (4, 2), (1, 8)):
        output = tmp_path / f"{size}x{accumulation}"
        split = ["--per_device_train_batch_size", str(size), "--gradient_accumulation_steps", str(accumulation)]
        in_process(command, words(command, checkpoint, tmp_path, output, *split))
        outputs.append(output)
    first = numbers(outputs[0])
    assert [line["examples"] for line in first] == [8, 11, 19, 22]
    weights = read_tensors(outputs[0] / "model.safetensors")
    for output in outputs[1:]:
        for line, wanted in zip(numbers(output), first, strict=True):
            assert line["loss"] == pytest.approx(wanted["loss"], abs=1e-5)
            assert line["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4)
            assert (line["tokens"], line["examples"], line["epoch"]) == (wanted["tokens"], wanted["examples"], wanted["epoch"])
        for name, array in read_tensors(output / "model.safetensors").items():
            assert np.abs(array - weights[name]).max() <= 1e-4, name


@pytest.mark.parametrize("key", ["zero_padding", "greedy_zero_padding"])
def test_zero_padding_counts_packed_rows(key: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    keys = words("sft", checkpoint, tmp_path, tmp_path / key, f"--{key}", "--max_length", "160", "--gradient_accumulation_steps", "1")
    in_process("sft", [*keys, "--check"])
    said = capsys.readouterr().out
    assert "check passed" in said and not (tmp_path / key).exists()
    in_process("sft", keys)
    lines = numbers(tmp_path / key)
    assert f"steps: {len(lines)};" in said
    assert lines[-1]["examples"] == 22 and 2 * 2 <= len(lines) < 2 * 6  # fewer than 6 steps of two rows an epoch
    assert lines[-1]["tokens"] == 2 * next(line["tokens"] for line in lines if line["examples"] == 11)


def test_check_shows_ln_2_and_writes_nothing(checkpoint: Path, tmp_path: Path, run_command: Callable):
    keys = words("dpo", checkpoint, tmp_path, tmp_path / "out", "--check")
    before = hashes(tmp_path)
    code, out, err = run_command(["dpo_main.py", *keys])
    assert (code, err) == (0, "")
    assert "check passed" in out and f"loss {LN_2:.4f}" in out and "11 of 11 rows" in out and "steps: 6;" in out
    assert "one example (⟦ ⟧ stand around what is scored):" in out
    assert hashes(tmp_path) == before and not (tmp_path / "out").exists()
    in_process("sft", words("sft", checkpoint, tmp_path, tmp_path / "out", "--check"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_evaluation_alone(command: str, checkpoint: Path, tmp_path: Path):
    output = tmp_path / "out"
    in_process(command, words(command, checkpoint, tmp_path, output, "--do_train", "false", "--do_eval"))
    (line,) = numbers(output)
    assert line["step"] == 0 and line["eval_loss"] > 0
    assert command == "sft" or line["eval_loss"] == pytest.approx(LN_2, abs=1e-5)
    assert not (output / "model.safetensors").exists() and not (output / "curves.png").exists()


def test_evaluation_after_training_tells_its_epoch(checkpoint: Path, tmp_path: Path):
    in_process("sft", words("sft", checkpoint, tmp_path, tmp_path / "out", "--do_eval"))
    last = numbers(tmp_path / "out")[-1]
    assert (last["step"], last["epoch"]) == (6, 2.0) and "eval_loss" in last


def test_the_final_model_is_the_last_checkpoint(checkpoint: Path, tmp_path: Path):
    output = tmp_path / "out"
    in_process("sft", words("sft", checkpoint, tmp_path, output, "--save_strategy", "epoch", "--save_total_limit", "1"))
    ((step, folder),) = list_checkpoints(output)
    assert step == 6
    final, last, start = (load_model(place, "float32").state_dict() for place in (output, folder, checkpoint))
    assert final.keys() == last.keys() == start.keys()
    assert all((final[name].numpy() == last[name].numpy()).all() for name in final)
    assert any((final[name].numpy() != start[name].numpy()).any() for name in final)
    for name in ("tokenizer.model", "tokenizer_config.json", "generation_config.json"):
        assert (output / name).read_bytes() == (checkpoint / name).read_bytes()
    run = json.loads((output / "run.json").read_text())
    assert run["finished"] is True and run["steps"] == 6 and (output / "curves.png").exists()


def test_one_launched_process_does_what_one_process_does(checkpoint: Path, tmp_path: Path, run_command: Callable):
    keys = words("sft", checkpoint, tmp_path, tmp_path / "launched", "--max_steps", "2")
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", "1", "--log_dir", tmp_path / "logs"]
    code, out, err = run_command([*launcher, ROOT / "sft_main.py", *keys])
    assert code == 0, out + err
    in_process("sft", words("sft", checkpoint, tmp_path, tmp_path / "plain", "--max_steps", "2"))
    assert numbers(tmp_path / "launched") == numbers(tmp_path / "plain")


def test_a_plain_run_prints_our_lines_alone(checkpoint: Path, tmp_path: Path):
    """In a user's environment: nothing of what keeps Paddle quiet is set from outside."""
    ours = ("GLOG_", "FLAGS_", "MKL_", *THREAD_VARIABLES, *MALLOC_VARIABLES)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, str(ROOT / "sft_main.py"), *words("sft", checkpoint, tmp_path, tmp_path / "out", "--do_eval")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    known = ("machine: ", " ", "note: ", "train: ", "dev: ", "step ", "eval ", "saved ", "what the curves ", "done in ", "next:")
    lines = done.stdout.splitlines()
    block = lines[lines.index("sft_main.py") :]
    assert [line for line in lines if line and not line.startswith(known) and line != "sft_main.py"] == []
    labels = [line.split()[0] for line in block if line.startswith("  ") and line[2] != " "]
    start = ["model", "train", "dev", "layout", "a", "steps", "saves", "evaluates", "memory", "output", "arguments"]
    assert labels[: len(start)] == start and next(n for n, line in enumerate(block) if line.startswith(("step ", "eval "))) <= 25
    assert [line for line in block if line.startswith("  page ")] == [f"  page       {tmp_path / 'out' / 'report.html'}"]
    assert all(word not in done.stdout for word in ("Warning", "[   DEBUG]", "INFO"))
