"""The blocks at the start and the end of a run: what to run next can be run, long lists are cut, and the best evaluation is found."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from evaluate import TASKS
from paddlealign.arguments import parse
from paddlealign.arguments.show import labelled, render_given
from paddlealign.recipes.next_commands import PAIRS, next_commands, run_beside
from paddlealign.recipes.run_words import EndOfRun, best_text, end_entries
from paddlealign.recipes.start_block import arguments_text, evaluates_text, saves_text
from paddlealign.training.checkpoint import TrainState
from tests.least_arguments import run

SCRIPTS = {"predict.py": "predict", "dpo_main.py": "dpo", "paddlealign.export": "export"}


def parsed(command: str) -> Any:
    """The arguments of a command that a user copies."""
    python, first, *words = shlex.split(command)
    assert python == "python"
    if first == "-m":
        first, *words = words
    return parse(TASKS[words[0]], words[1:], {}) if first == "evaluate.py" else parse(SCRIPTS[first], words, {})  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("command", "lora", "wanted"),
    [
        ("sft", False, ["predict", "evaluate_perplexity", "export", "dpo"]),
        ("sft", True, ["predict", "evaluate_perplexity", "export", "dpo"]),
        ("reward", False, ["evaluate_rewards", "export"]),
        ("reward", True, ["evaluate_rewards"]),
        ("dpo", False, ["predict", "evaluate_compare", "export"]),
        ("dpo", True, ["predict", "evaluate_compare", "export"]),
    ],
)
def test_what_to_run_next_are_commands_that_can_be_read(tmp_path: Path, command: str, lora: bool, wanted: list[str]):
    output = str(tmp_path / "out put")
    arguments = run(tmp_path, command, output_dir=output, model_name_or_path="base", lora=lora, chat_template="none")
    found = [parsed(text) for text, _ in next_commands(arguments, Path("my rows/dev.json"), "bfloat16", "float32")]
    assert [it.command for it in found] == wanted
    for it in found:
        of_adapter = lora and it.command != "dpo"
        assert it.model.model_name_or_path == ("base" if of_adapter else f"{output}-merged" if lora else output)
        assert it.command == "dpo" or it.adapter.lora_path == (output if lora else None)
        if it.command.startswith("evaluate"):
            section = it.comparison if it.command == "evaluate_compare" else it.scoring
            assert section.data_file == "my rows/dev.json" and Path(section.output_file).parent == Path(output)
            assert section.chat_template == "none"
    told = " ".join(text for text, _ in next_commands(arguments, None, "float32", "float32"))
    assert (
        ("evaluate.py" in told) == (command == "reward")
        and ("export" in told) == (lora and command != "reward")
        and (PAIRS in told) == (command != "dpo")
    )


def test_the_newest_finished_run_beside_this_one_is_offered_for_comparison(tmp_path: Path):
    assert run_beside(tmp_path / "this", "dpo") is None
    runs = {
        "old": {"command": "dpo", "finished": True},
        "newer": {"command": "dpo", "finished": True},
        "broken off": {"command": "dpo", "finished": False},
        "other kind": {"command": "sft", "finished": True},
        "this": {"command": "dpo", "finished": True},
    }
    for age, (name, told) in enumerate(runs.items()):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(told))
        os.utime(tmp_path / name / "run.json", (age, age))
    (tmp_path / "no run").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("{")
    found = run_beside(tmp_path / "this", "dpo")
    assert found == tmp_path / "newer"
    arguments = run(tmp_path, "dpo", output_dir=f"{tmp_path}/this/")
    *_, (command, _) = next_commands(arguments, None, "float32", "float32", found)
    assert shlex.split(command) == ["python", "-m", "paddlealign.report", str(found), str(tmp_path / "this")]
    assert "report" not in str(next_commands(arguments, None, "float32", "float32"))


def test_the_arguments_that_the_user_gave_are_shown_and_a_long_list_is_cut(tmp_path: Path):
    given = {"seed": 7, "output_dir": "out", "train_dataset_path": ["rows.jsonl"], "warmup_steps": 0, "evaluation_strategy": "steps"}
    arguments = run(tmp_path, "sft", "--max_grad_norm", "1.0", dev_dataset_path=["dev.jsonl"], **given)
    text = arguments_text(arguments).replace("\u00a0", " ")
    assert "seed 7" in text and "train_dataset_path [rows.jsonl]" in text
    # One given as it is by default is told, on the command line before all else, and none that nobody gave.
    assert text.startswith("max_grad_norm 1") and text.index("seed 7") < text.index("warmup_steps 0")
    assert arguments.training.greater_is_better is False and arguments.training.do_eval
    assert "greater_is_better" not in text and "do_eval" not in text and "adam_beta1" not in text
    assert text.endswith("(all: out/run.json, or --log_level debug)") and " more " not in text
    checked = run(tmp_path, output_dir="out", check=True)
    assert arguments_text(checked).endswith("(all: --log_level debug)")
    files = [f"folder/rows-{number:03}.jsonl" for number in range(40)]
    cut = arguments_text(run(tmp_path, seed=7, output_dir="out", train_dataset_path=files, learning_rate=1e-3)).replace("\u00a0", " ")
    assert len(cut) < 600 and ", and " in cut and "rows-039" not in cut
    told = render_given(arguments).replace("\n", " ")
    assert "seed 7" in told and "max_grad_norm 1" in told and "greater_is_better" not in told
    assert all(len(line) <= 118 for line in labelled("arguments", arguments_text(arguments)).splitlines())


def test_when_a_run_saves_and_evaluates(tmp_path: Path):
    plain = run(tmp_path, save_steps=1500, logging_steps=7, do_eval=True, dev_dataset_path="dev.jsonl")
    assert (saves_text(plain), evaluates_text(plain)) == ("a checkpoint every 1,500 steps", "once, at the end")
    each = run(tmp_path, save_strategy="epoch", evaluation_strategy="steps", eval_steps=5, dev_dataset_path="dev.jsonl")
    assert (saves_text(each), evaluates_text(each)) == ("a checkpoint after each epoch", "every 5 steps")


def test_the_end_block_has_both_ends_of_the_figures_and_the_best_evaluation(tmp_path: Path):
    rows = [
        {"step": 1, "loss": 2.0, "accuracy": 0.25, "memory_gib": 1.5},
        {"step": 1, "eval_loss": 1.75, "eval_accuracy": 0.5},
        {"step": 2, "loss": 1.0, "accuracy": 0.75, "memory_gib": 1.25},
        {"step": 2, "eval_loss": 1.875, "eval_accuracy": 0.625},
    ]
    state = TrainState(step=2, best_step=1, best_metric=1.75)
    arguments = run(tmp_path, output_dir=str(tmp_path / "out"), evaluation_strategy="steps")
    end = EndOfRun(state, 10.0, 12_340, rows, ("float32", "float32"), {})
    told = dict(end_entries(arguments, end))
    assert told["speed"].startswith("1,234 tokens/s") and told["memory"] == "at most 1.50 GiB"
    assert told["train"] == "loss 2.0000 to 1.0000, accuracy 0.250 to 0.750"
    assert told["dev"] == "loss 1.7500 to 1.8750, accuracy 0.500 to 0.625"
    assert told["best"].startswith("eval loss 1.7500 at step 1, of which no checkpoint was kept")
    (tmp_path / "out" / "checkpoint-1").mkdir(parents=True)
    assert best_text(arguments, end) == f"eval loss 1.7500 at step 1: {tmp_path / 'out' / 'checkpoint-1'}"
    assert best_text(arguments, EndOfRun(TrainState(), 1.0, 1, [], ("", ""), {})).startswith("no evaluation")
    none = dict(end_entries(arguments, EndOfRun(state, 1.0, 1, [{"step": 1, "loss": None}], ("", ""), {})))
    assert none["train"] == "loss not a number" and "dev" not in none
