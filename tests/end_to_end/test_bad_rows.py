"""A bad row on the way through the commands: told by place and refused, or skipped, counted and kept. Never a traceback."""

import json
from pathlib import Path

import pytest

from paddlealign.models.config import read_config
from paddlealign.recipes.entry import main, main_of_task
from tests.small_runs import character_checkpoint

LINES = ['{"src": "ask", "tgt": "yes"}', '{"src": "ask" "tgt": "no"}', '{"src": "why", "tgt": "so"}', '{"src": "why", "tgt": ""}']
TASKS = {"perplexity": "evaluate_perplexity", "judge": "evaluate_judge", "rewards": "evaluate_rewards"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return character_checkpoint(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def kept(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def errors(capsys: pytest.CaptureFixture) -> str:
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("error: ") == 1 and "Traceback" not in error
    return error


def test_training(model: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    words = ["--model_name_or_path", model, "--train_dataset_path", rows, "--dev_dataset_path", rows, "--output_dir", out, "--do_train"]
    words += ["--do_eval", "--max_steps", "1", "--save_strategy", "no", "--src_length", "50", "--max_length", "100"]
    words = list(map(str, words))
    assert main("sft", words) == 1
    error = errors(capsys)
    assert f"{rows}:2:15: not valid JSON" in error and f"{rows}:4: tgt is empty" in error and "on_bad_row" in error
    assert not out.exists()
    assert main("sft", [*words, "--on_bad_row", "skip"]) == 0
    said = capsys.readouterr().out
    assert "  train      2 of 4 rows" in said and f"train: skipped 1 bad: tgt is empty. (first: {rows}:4)" in said
    assert f"dev: skipped 1 bad: tgt is empty. (first: {rows}:4)" in said and f"4 skipped rows are in {out / 'refused.jsonl'}" in said
    found = kept(out / "refused.jsonl")
    assert [it["source"] for it in found] == [f"{rows}:2:15", f"{rows}:4"] * 2
    assert [it["row"] for it in found] == [LINES[1], LINES[3]] * 2 and all(it["reason"] for it in found)

    # The same run over the good rows alone is the same run; a file of refused rows from before goes.
    before = (out / "metrics.jsonl").read_text()
    rows.write_text(f"{LINES[0]}\n{LINES[2]}\n", encoding="utf-8")
    assert main("sft", [*words, "--on_bad_row", "skip", "--overwrite_output_dir"]) == 0
    losses = [[json.loads(line).get("loss") for line in text.splitlines()] for text in (before, (out / "metrics.jsonl").read_text())]
    assert losses[0] == losses[1] and not (out / "refused.jsonl").exists()


def test_prediction(model: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A prompt that leaves the model no room is a bad row too; other columns come back as they were, even half a surrogate pair."""
    positions = read_config(model).max_positions
    with rows.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"src": "x" * positions}) + '\n{"src": "who", "id": "\\ud800"}\n')
    out = tmp_path / "out.jsonl"
    words = ["--model_name_or_path", model, "--data_file", rows, "--output_file", out, "--max_length", "4", "--src_length", positions + 9]
    words = list(map(str, words))
    assert main("predict", words) == 1
    assert f"{rows}:2:15: not valid JSON" in errors(capsys) and not out.exists()
    for _ in range(2):  # the second finds all rows there
        assert main("predict", [*words, "--on_bad_row", "skip"]) == 0
        said = capsys.readouterr().out
        assert f"done: 4 rows in {out}" in said and f"2 skipped rows are in {out}.refused.jsonl" in said
        assert [it["src"] for it in kept(out)] == ["ask", "why", "why", "who"] and kept(out)[3]["id"] == "\ud800"
        found = kept(Path(f"{out}.refused.jsonl"))
        assert [it["source"] for it in found] == [f"{rows}:2:15", f"{rows}:5"]
        assert "leaves no room for an answer" in found[1]["reason"]


def test_columns_of_other_names(model: Path, tmp_path: Path) -> None:
    """predict and evaluate read the columns that the keys name, and write the rows as they were."""
    rows, out, scores = tmp_path / "rows.jsonl", tmp_path / "out.jsonl", tmp_path / "scores.jsonl"
    pairs = [{"ask": "why", "good": ["so", "as"], "bad": ["no", "on"], "prompt": 3}, {"ask": "who", "good": "me", "bad": "you"}]
    rows.write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
    common = ["--model_name_or_path", str(model), "--data_file", str(rows), "--prompt_key", "ask"]
    assert main("predict", [*common, "--output_file", str(out), "--max_length", "4"]) == 0
    assert [{key: value for key, value in it.items() if key != "output"} for it in kept(out)] == pairs
    keys = ["--chosen_key", "good", "--rejected_key", "bad", "--output_file", str(scores), "--max_length", "100"]
    assert main_of_task("evaluate.py", TASKS, ["perplexity", *common, *keys]) == 0
    assert [(it["good"], it["tokens"]) for it in kept(scores)] == [("so", 3), ("as", 3), ("me", 3)]
    assert main("predict", [*common, "--output_file", str(tmp_path / "x"), "--messages_key", "ask"]) == 1


def test_judging(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "judge.py").write_text("def longer(prompt, a, b):\n    return len(a) - len(b)\n")
    answers = {name: tmp_path / f"{name}.jsonl" for name in "ab"}
    for name, path in answers.items():
        path.write_text(f'{{"ask": "q", "reply": "{name * (3 if name == "a" else 2)}", "id": 1}}\n{{"ask": "p"\n', encoding="utf-8")
    words = ["judge", "--answers_a", answers["a"], "--answers_b", answers["b"], "--judge", f"{tmp_path / 'judge.py'}:longer"]
    words += ["--prompt_key", "ask", "--response_key", "reply", "--output_file", tmp_path / "judged.jsonl"]
    words = list(map(str, words))
    assert main_of_task("evaluate.py", TASKS, words) == 1
    assert f"{answers['a']}:2:12: not valid JSON" in errors(capsys)
    assert main_of_task("evaluate.py", TASKS, [*words, "--on_bad_row", "skip"]) == 0
    [judged] = kept(tmp_path / "judged.jsonl")
    assert (judged["answer_a"], judged["answer_b"], judged["winner"], judged["id"]) == ("aaa", "bb", "a", 1) and "reply" not in judged
    assert [it["source"] for it in kept(tmp_path / "judged.jsonl.refused.jsonl")] == [f"{path}:2:12" for path in answers.values()]
