"""Files and folders that the arguments name, looked at before anything slow starts."""

from pathlib import Path

import pytest

from paddlealign.arguments import parse
from paddlealign.arguments.paths import check_paths
from paddlealign.arguments.row_files import dataset_files
from paddlealign.errors import UserError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a checkpoint and a data set in it, made the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.json").write_text("")
    (tmp_path / "d" / "dev.json").write_text("")
    return tmp_path


def sft(*words: str):
    return parse("sft", ["--model_name_or_path=m", "--output_dir=o", "--dataset_name_or_path=d", "--do_train", *words], {})


def refused(arguments) -> str:
    with pytest.raises(UserError) as caught:
        check_paths(arguments)
    return str(caught.value)


def files(*words: str):
    arguments = sft(*words)
    check_paths(arguments)
    return dataset_files(arguments.data, arguments.rows, arguments.training)


def test_a_folder_with_train_and_dev(home):
    assert files("--do_eval") == ((Path("d/train.json"),), (Path("d/dev.json"),))
    assert files() == ((Path("d/train.json"),), ())


def test_a_folder_of_folders_is_read_in_name_order(home):
    for name in ("b.json", "a.jsonl", "README.md"):
        (home / "e" / "train").mkdir(parents=True, exist_ok=True)
        (home / "e" / "train" / name).write_text("")
    assert files("--dataset_name_or_path=e").train == (Path("e/train/a.jsonl"), Path("e/train/b.json"))
    assert "neither dev.json, dev.jsonl nor a folder dev" in refused(sft("--dataset_name_or_path=e", "--do_eval"))


def test_one_file_holds_training_rows(home):
    assert files("--dataset_name_or_path=d/train.json").train == (Path("d/train.json"),)
    assert "Set dev_dataset_path" in refused(sft("--dataset_name_or_path=d/train.json", "--do_eval"))


def test_named_files_win_over_the_folder(home):
    (home / "x.jsonl").write_text("")
    found = files("--do_eval", "--train_dataset_path", "x.jsonl", "d/train.json")
    assert found == ((Path("x.jsonl"), Path("d/train.json")), (Path("d/dev.json"),))
    assert "train_dataset_path: y.jsonl does not exist" in refused(sft("--train_dataset_path", "y.jsonl"))


def test_two_forms_of_one_split_are_ambiguous(home):
    (home / "d" / "train.jsonl").write_text("")
    assert "train.json and train.jsonl" in refused(sft())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model_name_or_path=./meta-llama/Meta-Llama-3-8B"], "there is no folder ./meta-llama/Meta-Llama-3-8B, and it is no hub's id"),
        (["--model_name_or_path=org/m", "--chat_template=x"], "there is no folder org/m; a hub is asked for it when the rest is right"),
        (["--model_name_or_path=d"], "holds no config.json"),
        (["--model_name_or_path=d/dev.json"], "is a file; give the folder"),
        (["--tokenizer_name_or_path=t"], "tokenizer_name_or_path: there is no folder t"),
        (["--dataset_name_or_path=nowhere"], "neither a folder nor a file"),
        (["--chat_template=nowhere.jinja"], "neither a known name nor a file. Allowed: auto, none, a name (qwen,"),
        (["--chat_template=chat_template.json"], "PaddleNLP's own form"),
        (["--output_dir=d/dev.json"], "output_dir: d/dev.json is a file"),
        (["--output_dir=./m"], "never written to"),
        (["--resume_from_checkpoint=o/checkpoint-3"], "no folder o/checkpoint-3; in o there are: none."),
    ],
)
def test_what_is_missing_is_named(home, words, said):
    assert said in refused(sft(*words))


def test_what_the_run_reads_may_not_lie_where_it_writes(home):
    for folder in ("o/checkpoint-4", "t"):
        (home / folder).mkdir(parents=True)
        (home / folder / "config.json").write_text("{}")
    (home / "o" / "run.json").write_text("{}")
    (home / "o" / "metrics.jsonl").write_text("")
    (home / "o" / "rows.jsonl").write_text("")
    said = "lies in o as checkpoint-4, which the run writes or removes"
    assert f"model_name_or_path o/checkpoint-4 {said}" in refused(sft("--model_name_or_path=o/checkpoint-4"))
    assert f"tokenizer_name_or_path o/checkpoint-4 {said}" in refused(sft("--tokenizer_name_or_path=o/checkpoint-4"))
    assert "t is tokenizer_name_or_path itself" in refused(sft("--tokenizer_name_or_path=t", "--output_dir=t"))
    assert "the data file o/metrics.jsonl lies in o as metrics.jsonl" in refused(sft("--train_dataset_path=o/metrics.jsonl"))
    words = ["--model_name_or_path=m", "--output_dir=o", "--train_dataset_path=d/train.json", "--do_train"]
    dpo = parse("dpo", [*words, "--ref_model_name_or_path=o/checkpoint-4"], {})
    assert f"ref_model_name_or_path o/checkpoint-4 {said}" in refused(dpo)
    assert "o is ref_model_name_or_path itself" in refused(parse("dpo", [*words, "--ref_model_name_or_path=o"], {}))
    check_paths(sft("--train_dataset_path=o/rows.jsonl"))
    check_paths(sft("--output_dir=.", "--overwrite_output_dir"))  # m and d are none of the names that a run writes


@pytest.mark.parametrize("name", ["config.json", "model-00001-of-00002.safetensors"])
def test_a_model_that_no_run_made_is_not_replaced(home, name):
    (home / "o").mkdir()
    (home / "o" / "notes.txt").write_text("")
    check_paths(sft())
    (home / "o" / name).write_text("")
    assert f"o holds a model that no run of PaddleAlign made ({name})" in refused(sft("--overwrite_output_dir"))
    check_paths(sft("--resume_from_checkpoint", "true"))
    (home / "o" / "run.json").write_text("{}")
    check_paths(sft("--overwrite_output_dir"))


def test_a_checkpoint_that_is_not_there_brings_the_list_of_those_that_are(home):
    for step in (10, 2):
        (home / "o" / f"checkpoint-{step}").mkdir(parents=True)
    (home / "o" / "checkpoint-12.partial").mkdir()
    said = refused(sft("--resume_from_checkpoint", "checkpoint-2"))
    assert said == "resume_from_checkpoint: there is no folder checkpoint-2; in o there are: checkpoint-2, checkpoint-10."


def test_all_that_is_missing_comes_at_once(home):
    assert refused(sft("--tokenizer_name_or_path=t", "--chat_template=c")).startswith("2 problems")


def test_a_hubs_data_set_waits_for_what_is_wrong_here(home):
    alone = refused(sft("--dataset_name_or_path=org/rows"))
    assert alone.startswith("dataset_name_or_path: org/rows is neither a folder nor a file here, and as a hub's data set")
    assert refused(sft("--dataset_name_or_path=org/rows", "--tokenizer_name_or_path=t")).startswith("tokenizer_name_or_path: there is no")


def test_resuming_from_the_newest_needs_no_folder_yet(home):
    check_paths(sft("--resume_from_checkpoint", "true"))


def test_dpo_looks_for_its_reference_and_predict_for_its_rows(home):
    words = ["--model_name_or_path=m", "--output_dir=o", "--train_dataset_path=d", "--do_train", "--ref_model_name_or_path=r"]
    dpo = parse("dpo", words, {})
    assert "ref_model_name_or_path: there is no folder r" in refused(dpo)
    predict = ["--model_name_or_path", "m", "--data_file", "rows.jsonl"]
    assert "data_file: rows.jsonl is not a file" in refused(parse("predict", predict, {}))
    assert "output_file: d is a folder" in refused(parse("predict", [*predict[:2], "--data_file", "d/dev.json", "--output_file", "d"], {}))
    check_paths(parse("predict", [*predict, "--interactive"], {}))


def test_evaluate_looks_for_all_that_it_reads(home):
    (home / "rows").write_text("{}")
    scoring = ["--model_name_or_path=m", "--data_file=none", "--output_file=rows"]
    for task in ("rewards", "perplexity"):
        told = refused(parse(f"evaluate_{task}", scoring, {}))
        assert "data_file: none is not a file." in told and "output_file: rows exists already." in told
    told = refused(parse("evaluate_judge", ["--answers_a=rows", "--answers_b=none", "--judge=none.py:f", "--tokenizer_name_or_path=t"], {}))
    assert told.startswith("2 problems") and "answers_b: none is not a file." in told and "judge: none.py is not a file." in told
    models = ["--policy_model_name_or_path=m", "--ref_model_name_or_path=d", "--tokenizer_name_or_path=t", "--chat_template=x"]
    told = refused(parse("evaluate_judge", ["--answers_a=rows", "--answers_b=d/dev.json", *models], {}))
    assert told.startswith("3 problems") and "ref_model_name_or_path: d holds no config.json" in told
    assert "tokenizer_name_or_path: there is no folder t, and" in told and 'chat_template: "x" is neither' in told
    words = ["--model_name_or_path=m", "--baseline_model_name_or_path=d", "--data_file=rows", "--lora_path=m", "--output_file=rows"]
    told = refused(parse("evaluate_compare", words, {}))
    assert told.startswith("3 problems") and "baseline_model_name_or_path: d holds no config.json" in told
    assert "lora_path: m holds no adapter_config.json" in told and "output_file: rows exists already." in told
    check_paths(parse("evaluate_compare", [*words[:1], "--baseline_model_name_or_path=m", *words[2:3]], {}))
