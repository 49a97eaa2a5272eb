"""What the curves mean, through the commands: said once when seen, listed at the end, kept in run.json, and the same after a resume."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from paddlealign.recipes.entry import main
from tests.small_runs import make_checkpoint, write_rows

STEPS = 24


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[dict]]:
    """DPO on eight pairs, all in each step, with an evaluation and a checkpoint at every fourth. Returns the findings in run.json.

    The dev rows are the same pairs, or ("against") those with chosen and rejected answers exchanged: whoever learns the ones unlearns the
    others.
    """
    folder = tmp_path_factory.mktemp("made")
    model = make_checkpoint(folder / "model")
    rows = write_rows(folder / "train.jsonl", "dpo", "train", 0, 8)
    pairs = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    against = [{**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in pairs]
    (folder / "against.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in against), encoding="utf-8")

    def train(output: Path, dev: str, *extra: str) -> list[dict]:
        keys = ["--model_name_or_path", model, "--output_dir", output, "--max_length", "256", "--src_length", "128", "--do_train", "true"]
        keys += ["--train_dataset_path", rows, "--dev_dataset_path", folder / f"{dev}.jsonl", "--max_steps", STEPS, "--logging_steps", "1"]
        keys += ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1", "--learning_rate", "1e-3"]
        keys += ["--evaluation_strategy", "steps", "--eval_steps", "4", "--save_strategy", "steps", "--save_steps", "4"]
        assert main("dpo", [str(key) for key in (*keys, *extra)]) == 0
        return json.loads((output / "run.json").read_text(encoding="utf-8"))["findings"]

    return train


def test_a_finding_is_said_once_listed_at_the_end_and_kept(
    trained: Callable[..., list[dict]], tmp_path: Path, capsys: pytest.CaptureFixture
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    found = trained(whole, "against")
    out = capsys.readouterr().out
    overfitting = next(it for it in found if it["name"] == "overfitting")
    said = f"  overfitting, step {overfitting['step']}: eval_loss "
    before_end, _, end = out.partition("what the curves say (docs/curves.md):\n")
    assert before_end.count(said) == 1 == end.count(said)
    # It stands below the evaluation at which it was seen, and at the end all stand in the order in which they were seen.
    assert before_end.partition(said)[0].splitlines()[-1].startswith(f"eval {overfitting['step']:>2}/{STEPS}")
    assert [line.split(",")[0].strip() for line in end.splitlines() if ", step " in line] == [it["name"] for it in found]
    figures = {it["name"]: (it["before"], it["now"]) for it in overfitting["figures"]}
    assert figures["eval_loss"][1] > 1.05 * figures["eval_loss"][0] and figures["loss"][1] < 0.95 * figures["loss"][0]
    assert overfitting["tries"][0] == {"max_steps": 4} and {"learning_rate": 5e-4} in overfitting["tries"]

    # Cut off behind it, and gone on with: not said again before the end, and the same in the end.
    last = max(it["step"] for it in found)
    checkpoint = f"checkpoint-{-(-last // 4) * 4}"
    assert last <= 16
    shutil.copytree(whole / checkpoint, cut / checkpoint)
    for name in ("run.json", "metrics.jsonl"):
        shutil.copy(whole / name, cut / name)
    assert trained(cut, "against", "--resume_from_checkpoint", "true") == found
    before_resumed, _, end_resumed = capsys.readouterr().out.partition("what the curves say (docs/curves.md):\n")
    assert "resumed from" in before_resumed and "what may help" not in before_resumed
    assert end_resumed.partition("done in")[0] == end.partition("done in")[0]


def test_a_run_that_goes_well_is_told_so(trained: Callable[..., list[dict]], tmp_path: Path, capsys: pytest.CaptureFixture):
    assert trained(tmp_path / "out", "train") == []
    out = capsys.readouterr().out
    assert "what the curves say: nothing that asks for a change (docs/curves.md)\n" in out and "what may help" not in out


def test_a_short_run_says_that_it_is_short(trained: Callable[..., list[dict]], tmp_path: Path, capsys: pytest.CaptureFixture):
    assert trained(tmp_path / "out", "against", "--max_steps", "2", "--save_strategy", "no") == []
    assert "what the curves say: too early to tell from 2 training lines; 10 are needed (max_steps)\n" in capsys.readouterr().out
