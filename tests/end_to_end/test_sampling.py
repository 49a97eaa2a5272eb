"""Answers during training through the commands: those of the saved models, scored as evaluate.py scores, resumed, and of no effect."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paddlealign.recipes.entry import main
from paddlealign.training.run_log import read_metrics
from tests.small_runs import make_checkpoint, write_rows

LENGTHS = ["--max_length", "256", "--src_length", "128"]
SAMPLES = ["--sample_during_eval", "true", "--n_eval_model_samples", "4", "--sample_max_length", "10"]
DRAWN = ["--sample_temperature", "1.0"]  # likeliest tokens of a model this small are all alike
STEPS = (0, 2, 4, 5)
Words = Callable[..., list[str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="module")
def words(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Words:
    """A command line of 5 steps, evaluated and saved at 2 and 4; the last dev pair's prompt comes twice."""
    folder = tmp_path_factory.mktemp("rows")
    for kind in ("sft", "dpo"):
        write_rows(folder / f"{kind}_train.jsonl", kind, "train", 0, 8)
        lines = write_rows(folder / f"{kind}_dev.jsonl", kind, "dev", 0, 5).read_text(encoding="utf-8").splitlines()
        (folder / f"{kind}_dev.jsonl").write_text("\n".join([lines[0], *lines]) + "\n", encoding="utf-8")

    def line(kind: str, output: Path, *extra: object) -> list[str]:
        keys = ["--model_name_or_path", checkpoint, "--train_dataset_path", folder / f"{kind}_train.jsonl", "--output_dir", output]
        keys += ["--dev_dataset_path", folder / f"{kind}_dev.jsonl", "--do_train", "true", *LENGTHS, "--max_steps", "5"]
        keys += ["--learning_rate", "1e-2", "--lr_scheduler_type", "constant", "--per_device_train_batch_size", "4", "--logging_steps", "1"]
        keys += ["--evaluation_strategy", "steps", "--eval_steps", "2", "--save_steps", "2", "--per_device_eval_batch_size", "3"]
        return [str(word) for word in (*keys, *extra)]

    return line


@pytest.fixture(scope="module")
def reward_model(other: Path, words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("reward") / "out"
    keys = ["--model_name_or_path", other, "--evaluation_strategy", "no", "--save_strategy", "no"]
    assert main("reward", words("dpo", output, *keys)) == 0
    return output


@pytest.fixture(scope="module")
def sampled(words: Words, reward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DPO run with drawn answers, scored."""
    output = tmp_path_factory.mktemp("sampled") / "out"
    assert main("dpo", words("dpo", output, *SAMPLES, *DRAWN, "--sample_reward_model", reward_model)) == 0
    return output


def rows_of(output: Path, step: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "samples" / f"step-{step}.jsonl").read_text(encoding="utf-8").splitlines()]


def numbers(output: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if "per_second" not in key and key != "memory_gib"} for line in read_metrics(output)]


def predicted(model: Path, prompts: list[dict[str, Any]], folder: Path, *extra: str) -> list[str]:
    """What predict.py writes for the same prompts."""
    folder.mkdir()
    (folder / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": row["prompt"]}) for row in prompts), encoding="utf-8")
    keys = ["--model_name_or_path", model, "--data_file", folder / "prompts.jsonl", "--output_file", folder / "out.jsonl"]
    assert main("predict", [str(key) for key in (*keys, "--max_length", "10", *extra)]) == 0
    return [json.loads(line)["output"] for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]


def test_answers_are_those_of_the_models_that_were_saved(sampled: Path, checkpoint: Path, tmp_path: Path) -> None:
    draws = ["--decode_strategy", "sampling", "--temperature", "1.0", "--top_p", "1.0", "--dtype", "float32"]
    models = (checkpoint, sampled / "checkpoint-2", sampled / "checkpoint-4", sampled)
    assert sorted(path.name for path in (sampled / "samples").iterdir()) == [f"step-{step}.jsonl" for step in STEPS]
    seen = []
    for step, model in zip(STEPS, models, strict=True):
        rows = rows_of(sampled, step)
        seen.append([row["response"] for row in rows])
        assert seen[-1] == predicted(model, rows, tmp_path / str(step), *draws), step
        assert [row["prompt"] for row in rows] == [row["prompt"] for row in rows_of(sampled, 0)]
        assert [row["reference_response"] for row in rows] == seen[0]
        assert all(0 <= row["length"] <= 10 for row in rows)
    assert len({row["prompt"] for row in rows}) == len(rows) == 4
    assert all(len(set(texts)) == 4 for texts in seen) and len({json.dumps(texts) for texts in seen}) == 4


def test_scores_are_those_of_evaluate_rewards_and_the_log_has_their_means(sampled: Path, reward_model: Path, tmp_path: Path) -> None:
    lines = [line for line in numbers(sampled) if "samples/length" in line]
    assert [line["step"] for line in lines] == list(STEPS)
    for step, line in zip(STEPS, lines, strict=True):
        rows = rows_of(sampled, step)
        assert line == {
            "step": step,
            "epoch": line["epoch"],
            "samples/length": pytest.approx(sum(row["length"] for row in rows) / 4),
            "samples/score": pytest.approx(sum(row["score"] for row in rows) / 4),
        }
    unscored = tmp_path / "answers.jsonl"
    keys = ("prompt", "response", "length")
    unscored.write_text("\n".join(json.dumps({key: row[key] for key in keys}) for row in rows), encoding="utf-8")
    asked = ["--model_name_or_path", reward_model, "--data_file", unscored, "--output_file", tmp_path / "scores.jsonl"]
    assert main("evaluate_rewards", [str(key) for key in asked]) == 0
    scores = [json.loads(line)["score"] for line in (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["score"] for row in rows] == pytest.approx(scores, abs=2e-6) and len(set(scores)) == 4


def test_sampling_changes_nothing_in_training(sampled: Path, words: Words, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    assert main("dpo", words("dpo", plain)) == 0
    assert numbers(plain) == [line for line in numbers(sampled) if "samples/length" not in line]
    for name in ("model.safetensors", "checkpoint-4/model.safetensors", "checkpoint-4/optimizer.safetensors"):
        assert (plain / name).read_bytes() == (sampled / name).read_bytes(), name
    assert not (plain / "samples").exists()


def test_a_resumed_run_has_each_answer_and_figure_once(
    sampled: Path, words: Words, reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(sampled, cut, ignore=shutil.ignore_patterns("checkpoint-4"))
    (cut / "samples" / "step-3.jsonl").write_text("of a run that went on otherwise")
    keys = [*SAMPLES, *DRAWN, "--sample_reward_model", reward_model, "--resume_from_checkpoint", "true"]
    assert main("dpo", words("dpo", cut, *keys)) == 0
    assert numbers(cut) == numbers(sampled)
    before, after = ({path.name: path.read_bytes() for path in (folder / "samples").iterdir()} for folder in (sampled, cut))
    assert after == before
    # Without the file of the start nobody knows what the reference would have answered.
    for path in (cut / "samples").iterdir():
        path.unlink()
    shutil.rmtree(cut / "checkpoint-4")
    capsys.readouterr()
    assert main("dpo", words("dpo", cut, *keys)) == 0
    assert "the reference's answers are left out, since the policy is past its start" in capsys.readouterr().out
    assert [row["response"] for row in rows_of(cut, 5)] == [row["response"] for row in rows_of(sampled, 5)]
    assert not any("reference_response" in row for row in rows_of(cut, 5))
    # A run in its place leaves none of them behind.
    assert main("dpo", words("dpo", cut, "--overwrite_output_dir", "true", "--max_steps", "1")) == 0
    assert not list((cut / "samples").iterdir())


def test_an_adapter_answers_without_dropout_and_trains_as_ever(words: Words, checkpoint: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    asked = [{"src": "How many legs does a cat have?"}, {"src": "x" * 2000}, {"messages": [{"role": "system", "content": "Be brief."}]}]
    asked[2]["messages"] += [{"role": "user", "content": "What is 2 plus 3?"}]
    prompts.write_text("\n".join(json.dumps(row) for row in asked), encoding="utf-8")
    lora = ["--lora", "true", "--lora_dropout", "0.5", "--evaluation_strategy", "no", "--learning_rate", "5e-2"]
    whole, plain = tmp_path / "whole", tmp_path / "plain"
    assert main("sft", words("sft", whole, *lora, *SAMPLES, "--sample_data_file", prompts)) == 0
    assert main("sft", words("sft", plain, *lora)) == 0
    assert (whole / "adapter_model.safetensors").read_bytes() == (plain / "adapter_model.safetensors").read_bytes()
    rows = rows_of(whole, 5)
    assert [path.name for path in sorted((whole / "samples").iterdir())] == ["step-0.jsonl", "step-5.jsonl"]
    assert [row["prompt"] for row in rows] == [asked[0]["src"], asked[2]["messages"]] and rows[0].keys() == {"prompt", "response", "length"}
    greedy = ["--decode_strategy", "greedy_search", "--dtype", "float32"]
    for step, adapter in ((0, []), (5, ["--lora_path", str(whole)])):
        texts = [row["response"] for row in rows_of(whole, step)]
        assert texts == predicted(checkpoint, rows, tmp_path / str(step), *greedy, *adapter)
    assert rows_of(whole, 0) != rows


def test_a_reference_of_its_own_answers_where_it_is_in_memory(
    words: Words, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    draws = ["--decode_strategy", "sampling", "--temperature", "1.0", "--top_p", "1.0", "--dtype", "float32"]
    keys = ["--ref_model_name_or_path", other, "--max_steps", "1", "--save_strategy", "no", *SAMPLES, *DRAWN]
    frozen, cached = tmp_path / "frozen", tmp_path / "cached"
    assert main("dpo", words("dpo", frozen, *keys, "--reference_mode", "frozen")) == 0
    rows = rows_of(frozen, 1)
    assert [row["reference_response"] for row in rows] == predicted(other, rows, tmp_path / "other", *draws)
    assert [row["response"] for row in rows_of(frozen, 0)] != [row["reference_response"] for row in rows]
    capsys.readouterr()
    assert main("dpo", words("dpo", cached, *keys)) == 0
    assert "the reference's answers are left out" in capsys.readouterr().out
    assert all("reference_response" not in row for row in rows_of(cached, 1))


def test_a_judge_of_ones_own_holds_each_answer_to_the_references(words: Words, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    judge, output = tmp_path / "judges.py", tmp_path / "out"
    judge.write_text("def later(prompt, answer, reference):\n    return (answer > reference) - (answer < reference)\n")
    keys = ["--save_strategy", "no", *SAMPLES, *DRAWN, "--sample_judge"]
    assert main("dpo", words("dpo", output, *keys, f"{judge}:later")) == 0
    assert "preferred to the reference's" in capsys.readouterr().out
    logged = {line["step"]: line["samples/judge"] for line in read_metrics(output) if "samples/judge" in line}
    for step in (0, 2, 5):
        rows = rows_of(output, step)
        pairs = [(row["response"], row["reference_response"]) for row in rows]
        assert [row["verdict"] for row in rows] == [0.5 if a == b else float(a > b) for a, b in pairs]
        assert logged[step] == pytest.approx(sum(row["verdict"] for row in rows) / len(rows))
    assert logged[0] == 0.5 != logged[5]
    judge.write_text("calls = []\ndef late(prompt, answer, reference):\n    calls.append(1)\n    return 1 / (len(calls) <= 4)\n")
    failing = tmp_path / "failing"
    assert main("dpo", words("dpo", failing, *keys, f"{judge}:late")) == 0
    said = capsys.readouterr().out
    assert "the answers of step 2 are kept without its figures" in said and (failing / "model.safetensors").is_file()
    assert all("verdict" not in row for row in rows_of(failing, 5)) and all(row["verdict"] == 1.0 for row in rows_of(failing, 0))
    for command, word, told in (
        ("sft", f"{judge}:later", "there is none: SFT has no reference"),
        ("dpo", f"{judge}:later --loss_type simpo", "there is none: loss_type simpo has none"),
        ("dpo", f"{judge}:other", f"sample_judge: {judge} has no function other"),
        ("dpo", "judges", "sample_judge: "),
    ):
        assert main(command, words(command, tmp_path / "no", *keys, *word.split())) == 1
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (["--evaluation_strategy", "no"], "sample_during_eval has no prompts: do_eval is false"),
        (["--sample_reward_model", "MODEL"], "sample_reward_model: this is a language model (LlamaForCausalLM)"),
        (["--sample_data_file", "nowhere.jsonl"], "sample_data_file: nowhere.jsonl is not a file."),
        (["--sample_data_file", "OUT/samples/step-0.jsonl"], "lies in"),
        (["--sample_data_file", "LONG"], "no prompt of"),
    ],
)
def test_what_cannot_be_answered_is_told_before_training(
    extra: list[str], told: str, words: Words, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output, long = tmp_path / "out", tmp_path / "long.jsonl"
    long.write_text(json.dumps({"prompt": "x" * 2000}))
    if "OUT/samples/step-0.jsonl" in extra:
        (output / "samples").mkdir(parents=True)
        (output / "samples" / "step-0.jsonl").write_text(json.dumps({"prompt": "hello"}))
    places = {"MODEL": str(checkpoint), "LONG": str(long)}
    keys = [places.get(word, word.replace("OUT", str(output))) for word in extra]
    assert main("sft", words("sft", output, *SAMPLES, *keys)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1


def test_check_tells_of_the_prompts_and_keys_without_it_are_told(
    words: Words, reward_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    keys = ["--n_eval_model_samples", "9", "--sample_reward_model", reward_model, "--check", "true"]
    assert main("sft", words("sft", tmp_path / "out", "--sample_during_eval", "true", *keys)) == 0
    said = capsys.readouterr().out
    assert "samples: 5 prompts of 9 asked for from the dev rows, of " in said and f"samples: {reward_model} scores them" in said
    assert not (tmp_path / "out").exists()
    assert main("sft", words("sft", tmp_path / "out", *keys)) == 0
    said = capsys.readouterr().out
    assert "n_eval_model_samples (sample_during_eval is false)" in said and "samples: " not in said
