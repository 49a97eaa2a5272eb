"""Which files hold the rows: folders as users and hubs leave them."""

import os
from pathlib import Path

import pytest

from paddlealign.arguments import parse
from paddlealign.arguments.row_files import dataset_files, train_sources
from paddlealign.errors import UserError

HUB = {
    "plain": ["README.md", ".gitattributes", "configuration.json", "data.json"],
    "parquet": ["README.md", ".gitattributes", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
                "data/test-00000-of-00001-6ef3991c06080e14.parquet", ".cache/train.json"],
    "ultrachat": [f"data/{split}-00000-of-00001.parquet" for split in ("train_sft", "train_gen", "test_sft", "test_gen")],
    "hh": ["helpful-base/train.jsonl.gz", "helpful-base/test.jsonl.gz", "red-team/attempts.jsonl.gz", "harmless-base/train.jsonl.gz"],
    "shp": ["askbaking/train.json", "askbaking/validation.json", "askbaking/test.json", "legaladvice/train.json"],
    "stack": ["data/one.stackexchange.com/0000.parquet", "data/two.stackexchange.com/0000.parquet"],
    "branch": ["default/train/0000.parquet", "default/validation/0000.parquet"],
    "saved": ["dataset_dict.json", "train/data-00000-of-00001.arrow", "train/dataset_info.json", "train/state.json",
              "validation/data-00000-of-00001.arrow", "validation/state.json"],
    "named": ["math_train.jsonl", "math_dev.jsonl", "notes.txt"],
    "tables": ["train.csv", "test.tsv.zst"],
}  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, names in HUB.items():
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")


def found(*words: str) -> tuple[list[str], list[str]]:
    arguments = parse("sft", ["--model_name_or_path=m", "--output_dir=o", "--do_train", *words], {})
    train, dev = dataset_files(arguments.data, arguments.rows, arguments.training)
    return [str(path) for path in train], [str(path) for path in dev]


def refused(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        found(*words)
    return str(caught.value)


@pytest.mark.parametrize(
    ("words", "train", "dev"),
    [
        (["parquet", "--do_eval"], ["parquet/data/train-00000-of-00002.parquet", "parquet/data/train-00001-of-00002.parquet"],
         ["parquet/data/test-00000-of-00001-6ef3991c06080e14.parquet"]),
        (["plain"], ["plain/data.json"], []),
        (["ultrachat", "--split=train_sft", "--dev_split=test_sft", "--do_eval"], ["ultrachat/data/train_sft-00000-of-00001.parquet"],
         ["ultrachat/data/test_sft-00000-of-00001.parquet"]),
        (["hh", "--subset=helpful-base", "--do_eval"], ["hh/helpful-base/train.jsonl.gz"], ["hh/helpful-base/test.jsonl.gz"]),
        (["hh", "--subset=all"], ["hh/harmless-base/train.jsonl.gz", "hh/helpful-base/train.jsonl.gz"], []),
        (["hh", "--subset=helpful-base,harmless-base"], ["hh/helpful-base/train.jsonl.gz", "hh/harmless-base/train.jsonl.gz"], []),
        (["shp", "--subset_name=askbaking", "--do_eval"], ["shp/askbaking/train.json"], ["shp/askbaking/validation.json"]),
        (["shp", "--subset=askbaking", "--do_eval", "--dev_split=test"], ["shp/askbaking/train.json"], ["shp/askbaking/test.json"]),
        (["stack", "--subset=all"], [f"stack/data/{name}.stackexchange.com/0000.parquet" for name in ("one", "two")], []),
        (["stack", "--subset=two.stackexchange.com"], ["stack/data/two.stackexchange.com/0000.parquet"], []),
        (["branch", "--do_eval"], ["branch/default/train/0000.parquet"], ["branch/default/validation/0000.parquet"]),
        (["saved", "--do_eval"], ["saved/train/data-00000-of-00001.arrow"], ["saved/validation/data-00000-of-00001.arrow"]),
        (["named", "--do_eval"], ["named/math_train.jsonl"], ["named/math_dev.jsonl"]),
        (["tables", "--do_eval"], ["tables/train.csv"], ["tables/test.tsv.zst"]),
        (["hh/*/train.jsonl.gz"], ["hh/harmless-base/train.jsonl.gz", "hh/helpful-base/train.jsonl.gz"], []),
        (["tables,named", "--do_eval"], ["tables/train.csv", "named/math_train.jsonl"], ["tables/test.tsv.zst", "named/math_dev.jsonl"]),
    ],
)  # fmt: skip
def test_rows_in_a_folder_as_it_lies(home, words, train, dev):
    assert found("--dataset_name_or_path", words[0], *words[1:]) == (train, dev)


def test_all_files_of_a_folder_are_meant_unless_they_are_of_several_splits(home):
    (Path("own") / "eval").mkdir(parents=True)
    for name in ("a.json", "b.csv", "eval/c.json"):
        (Path("own") / name).write_text("x")
    assert found("--train_dataset_path=own")[0] == ["own/a.json", "own/b.csv"]
    assert found("--train_dataset_path=shp/legaladvice", "--dev_dataset_path=hh/harmless-base", "--do_eval") == (
        ["shp/legaladvice/train.json"], ["hh/harmless-base/train.jsonl.gz"]
    )  # fmt: skip
    assert found("--train_dataset_path=ultrachat/data", "--split=test_gen")[0] == ["ultrachat/data/test_gen-00000-of-00001.parquet"]
    assert "ultrachat/data holds no file of rows of train; there are: test_gen-" in refused("--train_dataset_path=ultrachat/data")
    (Path("own") / "test.json").write_text("x")
    assert "own holds no file of rows of train; there are: a.json, b.csv, test.json. Name the" in refused("--train_dataset_path=own")
    (Path("empty")).mkdir()
    assert "empty holds no file of rows (.json, .jsonl" in refused("--train_dataset_path=empty")


def test_files_patterns_and_folders_by_name(home):
    words = [
        "--train_dataset_path",
        "plain/data.json",
        "shp/*/train.json",
        "parquet",
        "--dev_dataset_path",
        "branch/default/validation",
        "shp/askbaking",
    ]
    train, dev = found(*words, "--do_eval")
    assert train == [
        "plain/data.json",
        "shp/askbaking/train.json",
        "shp/legaladvice/train.json",
        *found("--dataset_name_or_path=parquet")[0],
    ]
    assert dev == ["branch/default/validation/0000.parquet", "shp/askbaking/validation.json"]
    arguments = parse("sft", ["--model_name_or_path=m", "--output_dir=o", "--do_train", *words], {})
    assert [len(path) for path in train_sources(arguments.data, arguments.rows)] == [1, 2, 2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset_name_or_path=hh"], "hh holds 2 subsets: harmless-base, helpful-base. Set subset to one, to several, or to all."),
        (["--dataset_name_or_path=stack"], "stack holds 2 subsets: one.stackexchange.com, two.stackexchange.com."),
        (["--dataset_name_or_path=hh", "--subset=helpful"],
         "subset: hh has no subset helpful; there are: harmless-base, helpful-base, red-team"),
        (["--dataset_name_or_path=ultrachat"], "whose name says so (there are: test_gen, test_sft, train_gen, train_sft; see split)"),
        (["--dataset_name_or_path=parquet", "--split=dev"], "whose name says so (there are: test, train; see split)"),
        (["--dataset_name_or_path=nowhere"], "nowhere is neither a folder nor a file, and no hub's id, which is two words: org/name"),
        (["--dataset_name_or_path=shp/rows.jsonl"], "shp/rows.jsonl is neither a folder nor a file, and no hub's id"),
        (["--dataset_name_or_path=shp/*/train.json", "--do_eval"], "is one file, of training rows"),
        (["--train_dataset_path=x/*.json"], "train_dataset_path: no file fits the pattern x/*.json"),
        (["--train_dataset_path=parquet/data", "--split=gen"], "parquet/data holds no file of rows"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_asked(home, words, said):
    assert said in refused(*words)


def test_a_pipe_is_no_file_of_rows(home):
    os.mkfifo("pipe.jsonl")
    for key in ("dataset_name_or_path", "train_dataset_path"):
        assert f"{key}: pipe.jsonl is a pipe or a device" in refused(f"--{key}=pipe.jsonl")
