"""``--plain_path true`` on the command line: the same losses and weights as without, on one process and on several, from any checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from paddlealign.arguments.parsing import parse
from paddlealign.errors import UserError
from paddlealign.recipes.entry import main
from paddlealign.training.run_log import read_metrics
from tests.distributed.launching import ROOT, launch
from tests.least_arguments import DPO, run
from tests.small_runs import make_checkpoint, write_rows

LIMIT = 1e-5
STEPS = 6
KEYS = {
    "do_train": True, "do_eval": True, "evaluation_strategy": "steps", "eval_steps": 3, "greedy_zero_padding": True,
    "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "max_steps": STEPS, "learning_rate": 1e-3, "adam_epsilon": 1e-5,
    "logging_steps": 1, "save_steps": 3, "max_length": 256, "src_length": 128, "disable_tqdm": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and each command's rows, argument file and run without plain_path."""
    root = tmp_path_factory.mktemp("plain_path")
    make_checkpoint(root / "model")
    for command in ("sft", "reward", "dpo"):
        kind = "sft" if command == "sft" else "dpo"
        train, dev = (write_rows(root / f"{command}_{split}.jsonl", kind, split, 0, count) for split, count in (("train", 16), ("dev", 5)))
        places = {"model_name_or_path": root / "model", "train_dataset_path": train, "dev_dataset_path": dev, "output_dir": root / command}
        arguments = {**KEYS, **{key: str(path) for key, path in places.items()}}
        (root / f"{command}.json").write_text(json.dumps(arguments), encoding="utf-8")
        assert main(command, [str(root / f"{command}.json")]) == 0  # type: ignore[arg-type]
    return root


def assert_same_training(left: Path, right: Path, first: int = 1) -> None:
    """Losses, the evaluation's too, of the steps from ``first`` on; and all final weights."""
    losses = [
        {(it["step"], key): it[key] for it in read_metrics(out) if it["step"] >= first for key in ("loss", "eval_loss") if key in it}
        for out in (left, right)
    ]
    assert losses[0].keys() == losses[1].keys() and len(losses[0]) > STEPS - first + 1
    assert max(abs(loss - losses[1][key]) for key, loss in losses[0].items()) <= LIMIT
    weights = [load_file(out / "model.safetensors") for out in (left, right)]
    assert weights[0].keys() == weights[1].keys()
    assert max(np.abs(weight - weights[1][name]).max() for name, weight in weights[0].items()) <= LIMIT


@pytest.mark.parametrize("command", ["sft", "reward", "dpo"])
def test_the_key_changes_nothing_but_rounding(folder: Path, command: str, capsys: pytest.CaptureFixture):
    out = folder / f"{command}_plain"
    words = [str(folder / f"{command}.json"), "--plain_path", "true", "--output_dir", str(out)]
    assert main(command, words) == 0  # type: ignore[arg-type]
    assert_same_training(folder / command, out)
    said = capsys.readouterr().out
    assert "each response with its prompt in a row of its own" in " ".join(said.split())
    assert ("reference_mode is frozen: plain_path asks the reference anew at each step" in said) == (command == "dpo")
    assert not (out / "reference").exists() and (folder / "dpo" / "reference").exists()
    fast, slow = ([line["tokens"] for line in read_metrics(it) if "tokens" in line][-1] for it in (folder / command, out))
    assert fast == slow if command == "sft" else fast < slow  # a pair's prompt is laid down, and counted, twice


def test_a_run_goes_on_by_the_plain_path(folder: Path):
    out = folder / "resumed"
    words = ["--plain_path", "true", "--output_dir", str(out), "--resume_from_checkpoint", str(folder / "dpo" / "checkpoint-3")]
    assert main("dpo", [str(folder / "dpo.json"), *words]) == 0
    assert_same_training(folder / "dpo", out, first=4)


def test_a_check_says_what_it_does_not_estimate(folder: Path, capsys: pytest.CaptureFixture):
    words = ["--plain_path", "true", "--check", "true", "--output_dir", str(folder / "checked")]
    assert main("dpo", [str(folder / "dpo.json"), *words]) == 0
    said = capsys.readouterr().out
    assert "memory: not estimated under plain_path" in said and "check passed" in said
    assert main("plan", [str(folder / "dpo.json"), "--devices", "2", "--plain_path", "true"]) == 1
    assert "plain_path: plans count what training needs without it. Set it to false" in capsys.readouterr().err


@pytest.mark.parametrize("degree", ["data_parallel_degree", "pipeline_parallel_degree"])
def test_two_processes_take_the_plain_path(folder: Path, tmp_path: Path, degree: str):
    out = folder / degree
    rows_of_a_step = ["--gradient_accumulation_steps", "1" if degree.startswith("data") else "2"]
    words = [str(ROOT / "dpo_main.py"), str(folder / "dpo.json"), "--plain_path", "true", f"--{degree}", "2", "--output_dir", str(out)]
    code, screen = launch([*words, *rows_of_a_step], 2, tmp_path, timeout=120)
    assert code == 0, screen
    assert_same_training(folder / "dpo", out)


def test_a_cut_vocabulary_is_refused_with_the_fix(tmp_path: Path):
    path = tmp_path / "args.json"
    path.write_text(json.dumps({**DPO, "plain_path": True, "tensor_parallel_degree": 2}), encoding="utf-8")
    with pytest.raises(UserError, match=r"plain_path with tensor_parallel_degree 2 in several processes: .* Start it in one process"):
        parse("dpo", [str(path)], {"PADDLE_TRAINERS_NUM": "2"})
    assert parse("dpo", [str(path)], {}).training.plain_path  # in one process the degree asks for nothing


@pytest.mark.parametrize(
    ("keys", "mode", "told"),
    [({}, "frozen", True), ({"reference_mode": "frozen"}, "frozen", False), ({"loss_type": "simpo"}, "cached", False)],
)
def test_the_reference_is_asked_anew_where_there_is_one(tmp_path: Path, keys: dict[str, str], mode: str, told: bool):
    arguments = run(tmp_path, "dpo", plain_path=True, **keys)
    assert arguments.objective.reference_mode == mode
    assert any(note.startswith("reference_mode is frozen: plain_path") for note in arguments.notes) is told
    assert run(tmp_path, "dpo", **keys).objective.reference_mode == keys.get("reference_mode", "cached")
