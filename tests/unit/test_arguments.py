"""Values: where they come from, what wins, and the answers that wrong ones get."""

import re

import pytest

from paddlealign.arguments import parse
from paddlealign.errors import UserError
from tests.least_arguments import refused, run

# ---- sources and overriding


def test_file_command_line_and_default_are_told_apart(tmp_path):
    arguments = run(tmp_path, "sft", "--learning_rate", "2e-5", learning_rate=1e-3, seed=7)
    assert arguments.training.learning_rate == 2e-5
    assert (arguments.sources["learning_rate"], arguments.sources["seed"]) == ("command line", "file")
    assert (arguments.training.adam_beta2, arguments.sources["adam_beta2"]) == (0.999, "default")
    assert arguments.file == str(tmp_path / "args.json")


def test_no_file_is_needed():
    words = ["--model_name_or_path", "m", "--output_dir=o", "--dataset_name_or_path", "d", "--do_train"]
    words += ["--max_steps", "-1", "--no_score_all_turns"]
    arguments = parse("sft", words, {})
    assert arguments.file is None and arguments.training.do_train and arguments.training.max_steps == -1
    assert arguments.objective.score_turns == "last"
    assert arguments.sources["do_train"] == "command line"


def test_defaults_are_those_of_paddlenlp(tmp_path):
    training = run(tmp_path).training
    assert (training.num_train_epochs, training.learning_rate, training.save_steps, training.seed) == (1.0, 5e-5, 500, 42)
    generation = run(tmp_path, "predict").generation
    assert (generation.top_k, generation.top_p, generation.temperature, generation.max_length) == (0, 0.7, 0.95, 1024)


def test_null_means_unset_in_the_file_and_on_the_command_line(tmp_path):
    arguments = run(tmp_path, "sft", "--save_total_limit", "null", save_total_limit=3, seed=None, tokenizer_name_or_path=None)
    assert arguments.training.save_total_limit is None
    assert arguments.training.seed == 42 and arguments.sources["seed"] == "default"
    assert arguments.model.tokenizer_name_or_path is None


def test_whole_floats_are_integers_and_lists_are_files(tmp_path):
    arguments = run(tmp_path, "dpo", "--dev_dataset_path", "a.jsonl", "b.jsonl", max_steps=10.0, train_dataset_path="x.json, y.json")
    assert arguments.training.max_steps == 10 and isinstance(arguments.training.max_steps, int)
    assert arguments.data.train_dataset_path == ["x.json", "y.json"]
    assert arguments.data.dev_dataset_path == ["a.jsonl", "b.jsonl"]
    assert run(tmp_path, "sft", train_dataset_path=["x", "y"]).data.train_dataset_path == ["x", "y"]


def test_values_that_begin_with_dashes_go_behind_an_equals_sign(tmp_path):
    assert run(tmp_path, "sft", "--output_dir=--odd dir").training.output_dir == "--odd dir"
    assert "--output_dir needs a value" in refused(tmp_path, "sft", "--output_dir", "--odd")


def test_the_last_of_a_repeated_word_counts(tmp_path):
    assert run(tmp_path, "sft", "--seed", "1", "--seed", "2").training.seed == 2


# ---- wrong values


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("learning_rate", "3e-5", "write 3e-05 without quotes"),
        ("learning_rate", "ten", '"ten" is a text; a number is needed'),
        ("learning_rate", 0, "allowed: above 0"),
        ("learning_rate", True, "true is not allowed; a number"),
        ("max_steps", 1.5, "1.5 is not allowed; a whole number"),
        ("max_steps", -2, "allowed: -1 or more"),
        ("do_train", "ture", '"ture" is a text; true or false'),
        ("do_train", "true", "write true without quotes"),
        ("do_train", 1, "allowed: true, false"),
        ("seed", [1], "is a list; a whole number"),
        ("seed", {"a": 1}, "is a JSON object"),
        ("output_dir", 5, "5 is not allowed; a text"),
        ("evaluation_strategy", "step", "allowed: no, steps, epoch"),
        ("fp16_opt_level", 2, "one of O1, O2"),
        ("report_to", ["wandbs"], '"wandbs" is not allowed; allowed: none, or one or several of visualdl, tensorboard, wandb.'),
        ("report_to", ["none", "visualdl"], '"none,visualdl" is not allowed; none stands alone.'),
        ("log_level", "loud", "allowed: debug, info, warning, error"),
        ("train_dataset_path", [1], "a list of texts"),
        ("save_total_limit", 0, "1 or more or null for all"),
        ("warmup_ratio", 1.5, "allowed: 0 to 1"),
        ("seed", -1, "allowed: 0 to 4294967295."),
        ("tensor_parallel_degree", -3, "allowed: -1 or more"),
        ("training", {"seed": 1}, "nesting is not allowed: write the keys themselves"),
    ],
)
def test_a_wrong_value_names_line_key_value_and_what_is_allowed(tmp_path, key, value, said):
    message = refused(tmp_path, **{key: value})
    assert re.search(rf"args\.json, line \d+: {key}: ", message) and said in message


def test_the_line_is_the_right_one(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{\n\n"model_name_or_path": "m",\n"seed":\n"x"}', encoding="utf-8")
    with pytest.raises(UserError, match="line 4: seed"):
        parse("sft", [str(path)], {})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max_steps", "1.5"], 'command line: max_steps: "1.5" is not allowed; a whole number'),
        (["--do_train", "ture"], 'command line: do_train: "ture" is not allowed; allowed: true, false'),
        (["--learning_rate", "nan"], "a finite number"),
        (["--seed"], "--seed needs a value"),
        (["--seed", "1", "2"], "unexpected 2 after --seed"),
        (["x"], "unexpected x"),
        (["other.json"], "is given already"),
        (["-seed", "1"], "unexpected -seed"),
        (["--learning-rate", "1"], "unknown key. Did you mean learning_rate?"),
        (["--learning_rat", "1"], "Did you mean learning_rate?"),
        (["--lr", "1"], "Did you mean learning_rate?"),
        (["--batch_size", "1"], "Did you mean per_device_train_batch_size?"),
        (["--max_tokens", "1"], "Did you mean tokens_per_batch?"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, words, said):
    assert said in refused(tmp_path, "sft", *words)


def test_the_file_comes_first():
    with pytest.raises(UserError, match="the argument file comes first"):
        parse("sft", ["--do_train", "--seed=1", "--recompute", "true", "--output_dir", "o", "x.json"], {})


def test_all_problems_come_at_once(tmp_path):
    message = refused(tmp_path, seed="x", pissa=True, learnin_rate=1.0)
    assert message.startswith("3 problems") and message.count("\n") == 3


@pytest.mark.parametrize(
    ("command", "key", "value"),
    [
        ("dpo", "label_smoothing", 0.5),
        ("dpo", "beta", 0),
        ("reward", "center_rewards_coefficient", -0.1),
        ("evaluate_rewards", "truncation", "cut"),
        ("evaluate_rewards", "max_length", 0),
        ("evaluate_perplexity", "truncation", "cut"),
        ("evaluate_judge", "tie_margin", -1),
        ("evaluate_judge", "beta", 0),
        ("evaluate_compare", "show_rows", -1),
        ("predict", "top_p", 0),
        ("predict", "top_p", 1.01),
        ("predict", "temperature", 0),
        ("predict", "batch_size", 0),
        ("predict", "repetition_penalty", -1),
        ("predict", "decode_strategy", "beams"),
        ("predict", "dtype", "int8"),
    ],
)
def test_ranges(tmp_path, command, key, value):
    assert f"{key}: " in refused(tmp_path, command, **{key: value})


def test_missing_required_keys_are_all_named():
    with pytest.raises(UserError) as caught:
        parse("sft", ["--do_train"], {})
    assert "model_name_or_path must be set" in str(caught.value) and "output_dir must be set" in str(caught.value)
