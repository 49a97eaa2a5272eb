"""Which files the README.md of a data set, and what the datasets library wrote, say are its rows."""

import json
from pathlib import Path

import pytest

from paddlealign.data.sources import pieces, row_of
from tests.unit.test_row_files import found, refused

FILES = [
    "data/train-00000-of-00001.parquet",
    "data/old-train.parquet",
    "data/dev/a.jsonl",
    "data/dev/b.jsonl",
    "math/rows.csv",
    "notes.txt",
]


@pytest.fixture
def card(tmp_path, monkeypatch):
    """A folder ``d`` of files; returns what writes its README.md with such configs."""
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        path = tmp_path / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")

    def write(configs: str, front: str = "license: mit\n") -> None:
        (tmp_path / "d" / "README.md").write_text(f"---\n{front}configs:\n{configs}---\n# Rows\n\n---\nconfigs: no more\n")

    return write


DEFAULT = """\
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path:
    - data/dev/b.*
    - data/dev/*.jsonl
"""
MATH = "- config_name: math\n  data_files: math/*\n"


def test_the_files_of_a_split_are_those_that_the_card_names(card):
    card(DEFAULT)
    assert found("--dataset_name_or_path=d", "--do_eval") == (
        ["d/data/train-00000-of-00001.parquet"], ["d/data/dev/b.jsonl", "d/data/dev/a.jsonl"]
    )  # fmt: skip
    assert found("--train_dataset_path=d", "--split=test")[0] == ["d/data/dev/b.jsonl", "d/data/dev/a.jsonl"]
    assert "README.md names no file of rows that is here for gen of default; its splits are: train, test." in refused(
        "--dataset_name_or_path=d", "--split=gen"
    )


def test_a_subset_is_the_named_one_or_the_default(card):
    card(DEFAULT + MATH)
    assert found("--dataset_name_or_path=d")[0] == ["d/data/train-00000-of-00001.parquet"]
    assert found("--dataset_name_or_path=d", "--subset=math")[0] == ["d/math/rows.csv"]
    assert found("--dataset_name_or_path=d", "--subset=all")[0] == ["d/data/train-00000-of-00001.parquet", "d/math/rows.csv"]
    card(DEFAULT + MATH + "  default: true\n")
    assert found("--dataset_name_or_path=d")[0] == ["d/math/rows.csv"]
    card(MATH + "- config_name: other\n  data_files: [data/old-train.parquet, data/dev]\n")
    assert "d holds 2 subsets: math, other. Set subset" in refused("--dataset_name_or_path=d")
    assert found("--dataset_name_or_path=d", "--subset=other")[0] == [
        "d/data/old-train.parquet",
        "d/data/dev/a.jsonl",
        "d/data/dev/b.jsonl",
    ]
    assert "d has no subset physics; there are: math, other" in refused("--dataset_name_or_path=d", "--subset=physics")


def test_a_subset_that_is_only_a_folder_is_read_as_folders_are(card):
    card("- config_name: default\n  data_dir: data\n")
    (Path("d/data") / "old-train.parquet").unlink()
    assert found("--dataset_name_or_path=d", "--do_eval") == (
        ["d/data/train-00000-of-00001.parquet"], ["d/data/dev/a.jsonl", "d/data/dev/b.jsonl"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("configs", "said"),
    [
        ("- config_name: [\n", "README.md: its configs cannot be read"),
        ("- data_files: a.json\n", "is no list of config_name and data_files"),
        ("- config_name: a\n  data_files:\n  - split: train\n", "data_files of a are no pattern"),
        ("- config_name: a\n  data_files: ../../rows.json\n", "a lies outside of the folder, in ../../rows.json"),
        ("- config_name: a\n  data_files: https://x.org/rows.json\n", "a lies outside of the folder"),
        ("- config_name: a\n  data_files: notes.txt\n", "names no file of rows that is here for train of a"),
    ],
)
def test_a_card_that_is_not_clear_is_named_with_the_way_around(card, configs, said):
    card(configs)
    assert said in refused("--dataset_name_or_path=d")
    assert found("--train_dataset_path=d/math/rows.csv")[0] == ["d/math/rows.csv"]


def test_a_readme_without_configs_changes_nothing(card):
    Path("d/README.md").write_text("# configs:\n---\n")
    for name in FILES[:4]:
        Path("d", name).unlink()
    assert found("--dataset_name_or_path=d", "--subset=math")[0] == ["d/math/rows.csv"]


def rows_of(name: str) -> list[dict]:
    return [row_of(piece)[0] for piece in pieces(Path(name))]


def test_what_save_to_disk_and_the_librarys_cache_leave_is_read_without_their_own_files(tmp_path, monkeypatch):
    import datasets

    monkeypatch.chdir(tmp_path)
    rows = datasets.Dataset.from_list([{"src": f"question {n}", "tgt": "answer"} for n in range(6)])
    rows.save_to_disk("one", num_shards=3)
    rows.select([5, 0]).save_to_disk("one", num_shards=1)  # over the other, whose shards stay
    assert len(list(Path("one").glob("*.arrow"))) > 1
    Path("one/cache-0123456789abcdef.arrow").write_text("a step of map's")
    [only] = found("--dataset_name_or_path=one")[0]
    assert [row["src"] for row in rows_of(only)] == ["question 5", "question 0"]
    datasets.DatasetDict({"train": rows, "test": rows.select(range(2))}).save_to_disk("both")
    train, dev = found("--dataset_name_or_path=both", "--do_eval")
    assert [len(rows_of(name)) for name in (*train, *dev)] == [6, 2]
    Path("rows.jsonl").write_text(json.dumps({"src": "a", "tgt": "b"}))
    loaded = datasets.load_dataset("json", data_files={"train": "rows.jsonl"}, cache_dir="cache")
    loaded["train"].map(lambda row: {"tgt": row["tgt"] * 2})
    [file] = found(f"--dataset_name_or_path={Path(loaded['train'].cache_files[0]['filename']).parent}")[0]
    assert rows_of(file) == [{"src": "a", "tgt": "b"}]


def test_rows_that_were_saved_as_a_selection_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    Path("d/data.arrow").write_text("x")
    Path("d/state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}], "_indices_data_files": [{"filename": "i"}]}))
    assert "d was saved as a selection of other rows" in refused("--dataset_name_or_path=d")
