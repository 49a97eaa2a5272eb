"""The documents' examples through the commands: Trinity-RFT's YAML as it stands, and a converted command line, on a tiny model."""

import json
import shlex
from pathlib import Path

import pytest

from paddlealign.recipes.convert import main as convert
from paddlealign.recipes.entry import main
from tests.small_runs import character_checkpoint
from tests.unit.test_dialects_words import STAGE_2
from tests.unit.test_dialects_yaml import document

ROWS = [{"prompt": f"{n} + 1 =", "chosen": f"{n + 1}!", "rejected": f"{n} ?"} for n in range(16)]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    """A model and rows where the documents have them."""
    folder = tmp_path_factory.mktemp("documents")
    character_checkpoint(folder / "models/Qwen2.5-1.5B-Instruct")
    rows = folder / "sets/human_like_dpo_dataset"
    rows.mkdir(parents=True)
    for split in ("train", "dev"):
        (rows / f"{split}.json").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


def test_trinity_yaml_is_checked_as_it_stands(places, monkeypatch, capfd):
    monkeypatch.chdir(places)
    monkeypatch.setenv("MODEL_PATH", "models")
    monkeypatch.setenv("DATASET_PATH", "sets")
    path = document(places, "trinity_dpo.yaml")
    assert main("dpo", [str(path), "--check", "--per_device_train_batch_size", "8"]) == 0
    shown = capfd.readouterr().out
    for text in ("their key", "= 8 x 8", "The launch command", "ln 2 is 0.693147"):
        assert text in shown
    assert "0.6931" in shown  # the first loss
    assert not (places / "runs").exists()


def test_a_converted_command_line_trains(places, monkeypatch, capfd):
    monkeypatch.chdir(places)
    words = shlex.split(STAGE_2.replace("/path/to/sft/checkpoint", "models/Qwen2.5-1.5B-Instruct").replace("batch_size=64", "batch_size=8"))
    assert convert([*words, "--dataset_name_or_path", "sets/human_like_dpo_dataset", "-o", "args.json"]) == 0
    often = ["--eval_steps", "1", "--save_steps", "1"]
    assert main("dpo", ["args.json", "--max_steps", "2", "--warmup_steps", "1", "--learning_rate", "1e-3", *often]) == 0
    capfd.readouterr()
    lines = [json.loads(line) for line in (places / "output/my_experiment_dpo/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    # Its figures and outputs under our names: rewards_train/chosen is rewards/chosen, rewards_eval/chosen is eval_rewards/chosen.
    figures = {"loss", *(f"rewards/{name}" for name in ("chosen", "rejected", "accuracies", "margins")), "logps/chosen", "logps/rejected"}
    trained, evaluated = (next(line for line in lines if key in line) for key in ("loss", "eval_loss"))
    assert figures | {"step", "epoch", "grad_norm", "learning_rate", "examples_per_second"} <= trained.keys()
    assert {f"eval_{name}" for name in figures} <= evaluated.keys()
    run = places / "output/my_experiment_dpo"
    assert all((folder / "model.safetensors").exists() for folder in (run, run / "checkpoint-1", run / "checkpoint-2"))
    assert json.loads((run / "run.json").read_text())["arguments"]["objective"]["beta"] == {"value": 0.1, "source": "file"}
