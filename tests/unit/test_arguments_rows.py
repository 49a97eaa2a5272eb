"""The keys of rows: what goes together, what is read by whom, and the notes about the rest."""

import pytest

from paddlealign.arguments.row_fields import ROW_FORMS, RowArguments, column_names, shares
from paddlealign.data.columns import KEYS
from paddlealign.data.ranked_forms import PAIRS
from paddlealign.data.row_forms import form_named, forms_of
from tests.least_arguments import refused, run


def test_the_names_of_forms_columns_and_pairs_are_those_of_the_data():
    known = {form.name for kind in ("sft", "preference", "labelled") for form in forms_of(kind, "all")}
    assert set(ROW_FORMS) == known | {"auto", "pairs"}
    assert form_named("pairs", "sft", "all").name == "pairs"
    assert RowArguments.__dataclass_fields__["pairs"].metadata["choices"] == list(PAIRS)
    given = RowArguments(**{key: f"my {name}" for name, key in KEYS.items()})
    assert column_names(given, "labelled") == {name: f"my {name}" for name in KEYS}


def test_columns_that_the_rows_do_not_have_are_told_and_not_asked_for(tmp_path):
    keys = {"prompt_key": "question", "response_key": "response", "chosen_key": "good", "rejected_key": "bad"}
    sft, dpo, kto = run(tmp_path, "sft", **keys), run(tmp_path, "dpo", **keys), run(tmp_path, "dpo", loss_type="kto", **keys)
    assert column_names(sft.rows, "sft") == {"prompt": "question"}
    assert column_names(dpo.rows, "preference") == {"prompt": "question", "chosen": "good", "rejected": "bad"}
    assert any("chosen_key (SFT rows have no pairs" in note and "rejected_key" in note for note in sft.notes)
    assert any("response_key (the rows are pairs)" in note for note in dpo.notes)
    assert not any("_key" in note for note in kto.notes)
    pairs = run(tmp_path, "sft", row_form="pairs", **keys)
    assert column_names(pairs.rows, "sft") == column_names(dpo.rows, "preference")


@pytest.mark.parametrize(
    ("command", "keys", "said"),
    [
        ("sft", {"prompt_key": "a", "response_key": "a"}, "prompt_key and response_key name the same column, a"),
        ("sft", {"dataset_weights": [1, 2]}, "dataset_weights 1,2: 2 numbers, and there are 1 paths of training rows"),
        ("sft", {"dataset_weights": 0}, "a path of weight 0 has no rows to give"),
        ("sft", {"dataset_weights": "x"}, "dataset_weights x: numbers above 0 are needed"),
        ("sft", {"dataset_weights": "-1"}, "dataset_weights -1: numbers above 0 are needed"),
        ("reward", {"data_split": [5, 0, 5]}, "data_split 5,0,5 leaves no rows for reward"),
        ("dpo", {"data_split": "5,5"}, "data_split 5,5: three numbers are needed"),
        ("dpo", {"data_split": "0,0,0"}, "data_split 0,0,0: three numbers are needed"),
        ("dpo", {"data_split": "5,0,5", "data_split_part": "rm"}, "allowed: sft, reward, dpo"),
        ("dpo", {"row_form": "csv"}, "allowed: auto, src_tgt"),
        ("dpo", {"pairs": "best"}, "allowed: best_worst, all, adjacent"),
    ],
)
def test_keys_that_do_not_go_together(tmp_path, command, keys, said):
    assert said in refused(tmp_path, command, **keys)


def test_shares_follow_the_command(tmp_path):
    assert shares(run(tmp_path, "sft", data_split=[5, 2, 3]).rows, "sft") == (0.0, 0.5)
    assert shares(run(tmp_path, "reward", data_split=[5, 2, 3]).rows, "reward") == (0.5, 0.7)
    assert shares(run(tmp_path, "dpo", data_split="5,2,3").rows, "dpo") == (0.7, 1.0)
    assert shares(run(tmp_path, "dpo", data_split="5,2,3", data_split_part="sft").rows, "dpo") == (0.0, 0.5)
    assert shares(run(tmp_path, "dpo").rows, "dpo") is None


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"pairs": "all"}, "pairs (SFT takes the best answer)"),
        ({"data_split_part": "dpo"}, "data_split_part (there is no data_split to share)"),
        ({"dev_split": "test"}, "dev_split (do_eval is false and evaluation_strategy no)"),
        (
            {"do_train": False, "do_eval": True, "split": "a", "dataset_weights": 1, "data_split": "1,1,1"},
            "split (do_train is false), dataset_weights",
        ),
    ],
)
def test_keys_that_are_not_read_are_told(tmp_path, keys, said):
    assert any(f"Not read in this run: {said}" in note for note in run(tmp_path, "sft", **keys).notes)


def test_other_names(tmp_path):
    arguments = run(tmp_path, "sft", prompt_type="messages", subset_name="a", dataset_name_or_path=["d", "e"])
    assert (arguments.rows.row_form, arguments.rows.subset, arguments.data.dataset_name_or_path) == ("messages", ["a"], ["d", "e"])
    assert "prompt_type is read as row_form." in arguments.notes
