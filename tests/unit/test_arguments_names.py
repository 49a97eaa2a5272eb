"""The names of keys: aliases, refused keys, hints, keys of other commands, parallel degrees, combinations."""

import json
from dataclasses import fields

import pytest

from paddlealign.arguments import parse
from paddlealign.arguments.fields import PATH_KEYS, SECTIONS
from paddlealign.arguments.foreign import ALIASES, HINTS, ONLY
from paddlealign.arguments.parsing import known_fields
from paddlealign.errors import UserError
from tests.least_arguments import BASE, refused, run

# ---- names


@pytest.mark.parametrize(
    ("command", "alias", "value", "section", "key"),
    [
        ("dpo", "dpo_beta", 0.3, "objective", "beta"),
        ("dpo", "dpo_label_smoothing", 0.2, "objective", "label_smoothing"),
        ("dpo", "max_seq_len", 4000, "data", "max_length"),
        ("dpo", "max_prompt_len", 500, "data", "src_length"),
        ("dpo", "max_prompt_length", 500, "data", "src_length"),
        ("dpo", "ref_model_adapters", "a", "objective", "ref_lora_path"),
        ("sft", "gradient_checkpointing", True, "training", "recompute"),
        ("sft", "intokens", True, "data", "zero_padding"),
        ("sft", "eval_strategy", "epoch", "training", "evaluation_strategy"),
        ("sft", "task_name_or_path", ["d"], "data", "dataset_name_or_path"),
        ("predict", "max_new_tokens", 77, "generation", "max_length"),
    ],
)
def test_an_alias_works_and_is_told_once(tmp_path, command, alias, value, section, key):
    base = dict(BASE[command])
    base.pop(key, None)
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**base, alias: value}), encoding="utf-8")
    arguments = parse(command, [str(path)], {})
    assert getattr(getattr(arguments, section), key) == value
    assert sum(note.startswith(f"{alias} is read as {key}") for note in arguments.notes) == 1


def test_an_alias_in_the_file_and_on_the_command_line_is_told_once(tmp_path):
    arguments = run(tmp_path, "dpo", "--dpo_beta", "0.5", dpo_beta=0.1)
    assert arguments.objective.beta == 0.5 and arguments.notes.count("dpo_beta is read as beta.") == 1


def test_the_command_line_wins_under_either_name(tmp_path):
    assert run(tmp_path, "dpo", "--beta", "0.5", dpo_beta=0.1).objective.beta == 0.5
    assert run(tmp_path, "dpo", "--dpo_beta", "0.5", beta=0.1).objective.beta == 0.5


def test_two_names_with_two_values_are_refused(tmp_path):
    assert "dpo_beta and beta are the same key" in refused(tmp_path, "dpo", beta=0.1, dpo_beta=0.2)
    assert run(tmp_path, "dpo", beta=0.3, dpo_beta=None).objective.beta == 0.3
    assert run(tmp_path, "dpo", beta=None, dpo_beta=0.3).objective.beta == 0.3
    assert run(tmp_path, "dpo", "--beta", "null", beta=0.3, dpo_beta=0.3).objective.beta == 0.1
    assert run(tmp_path, "dpo", beta=0.1, dpo_beta=0.1).objective.beta == 0.1


def test_an_error_under_an_alias_names_both(tmp_path):
    assert "dpo_beta (= beta)" in refused(tmp_path, "dpo", dpo_beta=-1)


def test_dpo_users_are_told_what_max_seq_len_counts(tmp_path):
    assert any("ONE answer" in note for note in run(tmp_path, "dpo", max_seq_len=4096).notes)
    assert not any("ONE answer" in note for note in run(tmp_path, "sft", max_seq_len=4096).notes)


def test_keys_of_another_command_are_refused(tmp_path):
    assert "beta: is a key of dpo_main.py and evaluate.py judge, not of sft_main.py" in refused(tmp_path, "sft", beta=0.1)
    assert "sft_main.py, reward_main.py and dpo_main.py, not of predict.py" in refused(tmp_path, "predict", learning_rate=0.1)


def test_abbreviations_are_unknown_keys(tmp_path):
    assert "unknown key" in refused(tmp_path, "sft", "--learning", "1")


@pytest.mark.parametrize(("key", "rule"), ONLY.items())
def test_every_refused_key_says_why_and_passes_when_off(tmp_path, key, rule):
    asked = {bool: not (rule.allowed or (False,))[0], int: 7, float: 7.5, str: "something"}[rule.kind]
    message = refused(tmp_path, **{key: asked})
    assert f"{key}: " in message and rule.why in message
    for off in (*rule.allowed, None):
        assert run(tmp_path, **{key: off}).notes == ()


@pytest.mark.parametrize(("key", "hint"), HINTS.items())
def test_every_hint_is_told_once_and_silent_when_off(tmp_path, key, hint):
    asked = {bool: True, int: 7, float: 7.5, str: "something", list: ["a"]}[hint.kind]
    assert run(tmp_path, **{key: asked}).notes == (f"Nothing to do for {key}: {hint.why}.",)
    for off in ("",) if hint.kind is str else (None,) if hint.kind is list else (hint.kind(0), None):
        assert run(tmp_path, **{key: off}).notes == ()
    wrong = 3 if hint.kind is str else "wrong" if hint.kind is not list else 3
    assert f"{key}: " in refused(tmp_path, **{key: wrong})


def test_no_key_stands_in_two_tables():
    fields = {key for command in SECTIONS for key in known_fields(command)}
    tables = [fields, set(ALIASES), set(ONLY), set(HINTS)]
    for index, table in enumerate(tables):
        for other in tables[index + 1 :]:
            assert not table & other
    assert {alias.key for alias in ALIASES.values()} <= fields | set(ONLY) | {"sharding_parallel_degree"}


# ---- several processes


def test_a_parallel_degree_is_told_in_one_process(tmp_path):
    notes = run(tmp_path, tensor_parallel_degree=8, sharding="stage2", pipeline_parallel_degree=1, sequence_parallel=False).notes
    assert notes[0].startswith("tensor_parallel_degree 8, sharding stage2: for several processes")
    assert run(tmp_path, tensor_parallel_degree=-1, pipeline_parallel_degree=1, sharding="", sequence_parallel=False).notes == ()


def test_sharding_tells_that_a_step_takes_fewer_rows(tmp_path):
    assert any("multiply gradient_accumulation_steps by 4" in note for note in run(tmp_path, sharding="stage1", sharding_degree=4).notes)


def test_an_unknown_sharding_stage_is_refused(tmp_path):
    assert "sharding: " in refused(tmp_path, sharding="stage4")


# ---- combinations


@pytest.mark.parametrize(
    ("command", "keys", "said"),
    [
        ("sft", {"bf16": True, "fp16": True}, "bf16 and fp16"),
        ("sft", {"src_length": 2048}, "src_length 2048"),
        ("sft", {"do_train": False}, "nothing to do"),
        ("sft", {"dataset_name_or_path": None}, "do_train needs rows"),
        ("dpo", {"dev_dataset_path": None, "do_eval": True}, "with dev rows, or set do_eval false."),
        (
            "dpo",
            {"dev_dataset_path": None, "evaluation_strategy": "epoch"},
            "with dev rows, or set evaluation_strategy no.",
        ),
        ("sft", {"load_best_model_at_end": True, "evaluation_strategy": "epoch"}, "load_best_model_at_end needs evaluation_strategy"),
        (
            "sft",
            {"load_best_model_at_end": True, "evaluation_strategy": "steps", "eval_steps": 3, "save_steps": 10},
            "save_steps to be a multiple of eval_steps",
        ),
        ("sft", {"metric_for_best_model": "margin"}, "metric_for_best_model margin is DPO's"),
        ("evaluate_rewards", {"src_length": 9, "max_length": 9}, "src_length 9 (the prompt) must be below max_length 9"),
        ("evaluate_perplexity", {"src_length": 9, "max_length": 9}, "src_length 9 (the prompt) must be below max_length 9"),
        ("evaluate_judge", {"src_length": 9, "max_length": 9}, "src_length 9 (the prompt) must be below max_length 9"),
        ("sft", {"early_stopping_patience": 2}, "early_stopping_patience counts evaluations"),
        ("sft", {"resume_from_checkpoint": True, "overwrite_output_dir": True}, "resume_from_checkpoint"),
        ("sft", {"lr_scheduler_type": "constant", "warmup_steps": 3}, "warmup_steps asks for one"),
        ("sft", {"min_learning_rate": 1e-3, "learning_rate": 1e-4}, "min_learning_rate 0.001 is above learning_rate 0.0001"),
        ("sft", {"zero_padding": False, "greedy_zero_padding": True}, "contradict each other"),
        ("sft", {"tokens_per_batch": 9, "per_device_train_batch_size": 4}, "tokens_per_batch 9 and per_device_train_batch_size both say"),
        ("dpo", {"tokens_per_batch": 9, "zero_padding": True}, "tokens_per_batch 9 and zero_padding both say"),
        ("dpo", {"tokens_per_batch": 9, "greedy_zero_padding": True}, "tokens_per_batch 9 and greedy_zero_padding both say"),
        ("sft", {"group_by_length": True, "zero_padding": True}, "group_by_length puts rows of like length together, zero_padding"),
        ("sft", {"group_by_length": True, "tokens_per_batch": 9}, "group_by_length puts rows of like length together, tokens_per_batch"),
        ("predict", {"data_file": None}, "data_file is not set"),
        ("predict", {"output_file": "rows.jsonl"}, "the same file"),
    ],
)
def test_impossible_combinations_name_the_key(tmp_path, command, keys, said):
    assert said in refused(tmp_path, command, **keys)


def test_what_follows_from_other_keys(tmp_path):
    arguments = run(tmp_path, evaluation_strategy="steps", logging_steps=7, load_best_model_at_end=True, save_steps=14)
    training = arguments.training
    assert (training.do_eval, training.eval_steps, training.greater_is_better, training.metric_for_best_model) == (True, 7, False, "loss")
    assert arguments.sources["eval_steps"] == "derived"
    assert run(tmp_path, max_length=512).data.src_length == 256
    assert run(tmp_path, greedy_zero_padding=True).data.zero_padding is True
    assert run(tmp_path, "dpo", metric_for_best_model="eval_margin").training.greater_is_better is True
    assert run(tmp_path, resume_from_checkpoint=True).training.resume_from_checkpoint == "true"
    assert run(tmp_path, resume_from_checkpoint=False).training.resume_from_checkpoint is None
    assert run(tmp_path, report_to=["visualdl"]).training.report_to == "visualdl"
    assert run(tmp_path, report_to="wandb, tensorboard,wandb", run_name="x").training.report_to == "wandb,tensorboard"
    assert "Not read in this run: run_name (report_to does not name wandb)." in run(tmp_path, run_name="x").notes
    assert [run(tmp_path, log_level=given).screen.log_level for given in ("passive", "critical", "debug")] == ["info", "error", "debug"]
    assert run(tmp_path, chat_template="None").data.chat_template == "none"


def test_set_keys_that_another_key_makes_void_are_told(tmp_path):
    notes = run(tmp_path, eval_steps=5, num_train_epochs=3, max_steps=9).notes
    assert notes == ("Not read in this run: eval_steps (evaluation_strategy is no), num_train_epochs (max_steps is 9).",)
    notes = run(tmp_path, do_train=False, do_eval=True, save_on_stop=True).notes
    assert notes == ("Not read in this run: save_on_stop (do_train is false).",)
    notes = run(tmp_path, "predict", decode_strategy="greedy_search", top_p=0.9).notes
    assert notes == ("Not read in this run: top_p (decode_strategy is greedy_search).",)


def test_an_empty_text_unsets_a_key(tmp_path):
    assert run(tmp_path, tokenizer_name_or_path="", save_total_limit="").model.tokenizer_name_or_path is None
    assert "output_dir must be set" in refused(tmp_path, output_dir="")


def test_an_unknown_key_is_refused_even_when_it_is_null(tmp_path):
    assert "learnin_rate: unknown key. Did you mean learning_rate?" in refused(tmp_path, learnin_rate=None)


def test_best_weights_that_no_checkpoint_can_hold_are_told(tmp_path):
    keys = {"evaluation_strategy": "steps", "eval_steps": 100, "save_steps": 500, "max_steps": 100, "load_best_model_at_end": True}
    assert any("only the last weights to take" in note for note in run(tmp_path, **keys).notes)


def test_a_data_set_on_the_command_line_wins_over_the_files_data_keys(tmp_path):
    files = {"train_dataset_path": "t.json", "dev_dataset_path": "d.json"}
    arguments = run(tmp_path, "sft", "--dataset_name_or_path", "X", **files)
    data = arguments.data
    assert (data.dataset_name_or_path, data.train_dataset_path, data.dev_dataset_path) == (["X"], None, None)
    assert [note for note in arguments.notes if "takes the place of train_dataset_path and dev_dataset_path in the file" in note]
    kept = run(tmp_path, "sft", "--dataset_name_or_path", "X", "--dev_dataset_path", "e.json", **files).data
    assert (kept.train_dataset_path, kept.dev_dataset_path) == (None, ["e.json"])


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    arguments = run(tmp_path, "sft", "--output_dir=~/o", model_name_or_path="~/m", train_dataset_path=["~/a", "b~"])
    assert (arguments.training.output_dir, arguments.model.model_name_or_path) == ("/home/me/o", "/home/me/m")
    assert arguments.data.train_dataset_path == ["/home/me/a", "b~"]


def test_every_path_key_is_expanded():
    paths = {"DIR", "FILE", "PATH", "DIR|true|auto", "auto|none|NAME|FILE"}
    found = {item.name for parts in SECTIONS.values() for part in parts.values() for item in fields(part)
             if item.metadata.get("metavar") in paths}  # fmt: skip
    assert found == PATH_KEYS


def test_the_keys_of_predict_are_proposed_for_those_of_training(tmp_path):
    assert "Did you mean batch_size?" in refused(tmp_path, "predict", per_device_eval_batch_size=1)
    assert "Did you mean data_file?" in refused(tmp_path, "predict", dataset_name_or_path="d")


@pytest.mark.parametrize(
    ("file", "command", "said"),
    [
        ("sft", "predict", "this is a training file; start sft_main.py, reward_main.py or dpo_main.py with it"),
        ("sft", "evaluate_rewards", "this is a training file; start sft_main.py, reward_main.py or dpo_main.py with it"),
        ("dpo", "reward", "this is a DPO file; start dpo_main.py with it"),
        ("predict", "sft", "this is a prediction file; start predict.py with it"),
        ("dpo", "sft", "this is a DPO file; start dpo_main.py with it"),
        ("evaluate_judge", "sft", "this is a judging file; start evaluate.py judge with it"),
        ("evaluate_compare", "evaluate_judge", "this is a comparison file; start evaluate.py compare with it"),
        (
            "evaluate_rewards",
            "sft",
            "this is a scoring or a perplexity file; start evaluate.py rewards or evaluate.py perplexity with it",
        ),
    ],
)
def test_the_file_of_another_command_is_one_line(tmp_path, file, command, said):
    more = {
        "sft": {"seed": 1},
        "predict": {"batch_size": 2, "output_file": "o", "top_p": 0.5},
        "dpo": {"beta": 0.1, "label_smoothing": 0.1, "reference_mode": "frozen"},
        "evaluate_rewards": {"batch_size": 2, "output_file": "o", "truncation": "drop"},
        "evaluate_judge": {"tie_margin": 0.1},
        "evaluate_compare": {"ways": "sampling", "top_p": 0.5},
    }
    path = tmp_path / "args.json"
    path.write_text(json.dumps({**BASE[file], **more[file]}), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        parse(command, [str(path)], {})
    assert str(caught.value) == f"{path}: {said}."


def test_a_switch_that_was_turned_off_is_called_so(tmp_path):
    keys = {"load_best_model_at_end": True, "save_strategy": "no", "metric_for_best_model": "accuracy"}
    (first, second) = run(tmp_path, "sft", **keys).notes
    assert "load_best_model_at_end is switched off" in first
    assert "metric_for_best_model (load_best_model_at_end is off in this run)" in second
