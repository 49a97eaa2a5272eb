"""The rows of a run held against the model, and what is written beside it."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from paddlealign.arguments import parse
from paddlealign.arguments.row_fields import rows_kind
from paddlealign.data.encoding_report import EncodingReport
from paddlealign.data.example import Example, Response
from paddlealign.data.examples import Examples
from paddlealign.data.packing import row_length
from paddlealign.data.records import ReadReport
from paddlealign.errors import UserError
from paddlealign.models.config import read_config
from paddlealign.parallel.topology import Axis
from paddlealign.recipes.device import in_colour
from paddlealign.recipes.rows import (
    NO_EXAMPLES,
    Rows,
    check_shared_prompts,
    describe_rows,
    dev_batches,
    longest_text,
    make_feed,
    prepare_rows,
)
from paddlealign.recipes.side_files import side_files
from paddlealign.recipes.start_block import rows_text
from paddlealign.training.feed import Feed
from tests.small_runs import GOLDEN, ROOT


def rows_of(prompt: int, *responses: int) -> Rows:
    """One training example of those lengths."""
    made = tuple(Response(np.zeros(size, "int32"), np.ones(size, bool)) for size in responses)
    return Rows(SimpleNamespace(folder=Path("x")), 2, Examples.of([Example(np.zeros(prompt, "int32"), made)]), NO_EXAMPLES, {})


def test_dynamic_angles_and_long_pairs_are_refused() -> None:
    config = read_config(GOLDEN / "llama_dynamic")
    assert config.rope.original_positions == 32 and config.max_positions == 64
    check_shared_prompts(rows_of(20, 12, 3), config, "model_name_or_path")
    check_shared_prompts(rows_of(20, 40), config, "model_name_or_path")  # one response: each text has its own prompt
    with pytest.raises(UserError, match=r"^model_name_or_path: .*dynamic.*32 tokens; the longest pair has 33\. Set max_length to 32\.$"):
        check_shared_prompts(rows_of(20, 3, 13), config, "model_name_or_path")
    check_shared_prompts(rows_of(20, 40, 3), replace(config, rope=replace(config.rope, kind="yarn")), "model_name_or_path")
    assert longest_text(NO_EXAMPLES) == 0 and longest_text(rows_of(20, 3, 13).train) == 33


@pytest.mark.parametrize("said_in", ["generation_config.json", "config.json", "nowhere"])
def test_the_saved_model_names_the_end_token_that_it_was_taught(tmp_path: Path, capsys: pytest.CaptureFixture, said_in: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "llama1", folder)
    (folder / "generation_config.json").unlink()
    source = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**source, "eos_token_id": 2 if said_in == "config.json" else None}))
    if said_in == "generation_config.json":
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 2], "top_p": 0.9}))
    arguments = SimpleNamespace(
        model=SimpleNamespace(model_name_or_path=str(folder)),
        adapter=SimpleNamespace(lora_path=None),
        data=SimpleNamespace(chat_template="auto"),
    )
    rows = replace(rows_of(1, 1), tokenizer=SimpleNamespace(folder=folder))
    known, other = side_files(arguments, rows), side_files(arguments, replace(rows, end_id=7))
    written = json.loads(other["generation_config.json"])
    if said_in == "generation_config.json":
        assert known["generation_config.json"] == (folder / "generation_config.json").read_bytes()
        assert written == {"eos_token_id": [7, 5, 2], "top_p": 0.9}
    elif said_in == "config.json":
        assert "generation_config.json" not in known and written == {"eos_token_id": [7, 2]}
    else:
        assert written == {"eos_token_id": [7]}
    assert "answers end with token 7" in capsys.readouterr().out


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is encoded lies under output_dir, which these tests name by a relative path."""
    monkeypatch.chdir(tmp_path)


def prepared(capsys: pytest.CaptureFixture, command: str, *words: str) -> tuple[Rows, Feed, str]:
    """The rows and the first plan of a training command on a small tokenizer, and what was said."""
    arguments = parse(command, [f"--model_name_or_path={ROOT / 'data' / 'base_model'}", "--output_dir=o", "--do_train", *words], {})
    rows = prepare_rows(arguments, rows_kind(command, ""), score_turns="all")
    return rows, make_feed(arguments, rows, Axis(1, 0, None, (0,))), capsys.readouterr().out


def test_keys_of_the_batch_reach_the_order(capsys: pytest.CaptureFixture) -> None:
    """tokens_per_batch, group_by_length and both paddings, from the arguments to the feed; 8 rows, or packed rows, are the default."""
    path = ROOT / "data" / "dpo" / "dev.json"
    found: dict[str, list[list[int]]] = {}
    for key in ("", "--tokens_per_batch=70", "--group_by_length", "--zero_padding", "--greedy_zero_padding"):
        rows, feed, said = prepared(capsys, "dpo", f"--train_dataset_path={path}", "--max_length=120", *([key] if key else []))
        lengths = np.array([example.length for example in rows.train])
        batches = [batch for step in feed.steps(0) for batch in step.batches]
        assert sorted(index for batch in batches for index in batch.example_ids.tolist()) == list(range(160))
        assert all(batch.input_ids.shape == (1, row_length(batch.token_count)) for batch in batches)
        found[key] = [batch.example_ids.tolist() for batch in batches]
        if "tokens" in key:
            longer = int((lengths > 70).sum())
            assert f"note: {longer} training examples have more than tokens_per_batch 70 tokens" in said and longer > 1
            assert all(batch.token_count <= 70 or len(batch.example_ids) == 1 for batch in batches)
            assert feed.total_steps == len(batches) < 160
        elif "zero" in key:
            assert all(batch.token_count <= 8 * 120 for batch in batches) and len(batches) < 20
        else:
            assert all(len(batch.example_ids) == 8 for batch in batches)
    spread = {key: np.mean([np.ptp(lengths[ids]) for ids in of]) for key, of in found.items()}
    assert spread["--group_by_length"] < spread[""] / 2
    assert len({str(of) for of in found.values()}) == len(found)


def test_dev_rows_are_read_once_by_all_processes() -> None:
    """11 examples in batches of 2 on 3 processes: each once, the same number of batches everywhere, and what is left is spread."""
    examples = [Example(np.full(size, size, "int32"), (Response(np.ones(1, "int32"), np.ones(1, bool)),)) for size in range(1, 12)]
    arguments = SimpleNamespace(training=SimpleNamespace(per_device_eval_batch_size=2, plain_path=False))
    rows = Rows(SimpleNamespace(pad_id=0), 2, NO_EXAMPLES, Examples.of(examples), {})
    read = [[batch.example_ids.tolist() for batch in dev_batches(arguments, rows, Axis(3, rank, None, (0, 1, 2)))] for rank in range(3)]
    assert sorted(index for of_rank in read for ids in of_rank for index in ids) == list(range(11))
    assert [[len(ids) for ids in of_rank] for of_rank in read] == [[2, 2], [2, 2], [2, 1]]


def test_row_keys_reach_the_examples_and_the_order(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """data_split, dataset_weights, split, row_form, pairs, columns and system_prompt, from the arguments to the feed."""
    folder = tmp_path / "hub"
    (folder / "data").mkdir(parents=True)
    pairs = [{"ask": f"question {n}", "good": f"answer {n}", "bad": "none"} for n in range(60)]
    (folder / "data" / "train-00000-of-00001.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (folder / "data" / "test-00000-of-00001.jsonl").write_text(json.dumps(pairs[0]) + "\n")
    columns = ("--prompt_key=ask", "--chosen_key=good", "--rejected_key=bad")
    split = (f"--dataset_name_or_path={folder}", "--data_split=2,1,3", *columns)
    sizes = {}
    for command, keys in (("sft", ("--row_form=pairs",)), ("reward", ("--do_eval",)), ("dpo", ())):
        rows, feed, said = prepared(capsys, command, *split, *keys)
        sizes[command] = len(rows.train)
        assert rows_text(rows.told["train"]).startswith(f"{len(rows.train)} of 60 rows from 1 file (")
        assert f"left out {60 - len(rows.train)}: in the other shares of" in said
        assert ("train: rows: pairs form" if command == "sft" else "train: rows: plaintext form") in said
        assert all(len(example.responses) == (1 if command == "sft" else 2) for example in rows.train)
        assert len(rows.dev) == (command == "reward")  # data_split leaves the dev rows alone
    assert sum(sizes.values()) == 60 and min(sizes.values()) > 0

    plain, ranked = tmp_path / "plain.jsonl", tmp_path / "ranked.jsonl"
    plain.write_text("".join(json.dumps({"prompt": f"q{n}", "chosen": f"a{n}", "rejected": "b"}) + "\n" for n in range(40)))
    paths = (f"--train_dataset_path={plain},{ranked}", "--system_prompt=Be kind.")
    ranked.write_text(json.dumps({"prompt": "q", "completions": ["a", "b", "c"], "scores": [3, 2, 1]}) + "\n")
    first, feed, said = prepared(capsys, "dpo", *paths)
    assert len(first.train) == 41 and "train: rows: plaintext (40), ranked (1) forms" in said and feed.total_steps == 6
    every, feed, said = prepared(capsys, "dpo", *paths, "--pairs=all", "--dataset_weights=0.25,2")
    assert f"train: an epoch takes 10 of {plain}'s 40, 6 of {ranked}'s 3 examples" in said
    assert len(every.train) == 43 and every.mixture == ((40, 0.25), (3, 2.0)) and feed.total_steps == 2  # 10 and 6 of 8 a step
    epoch = [index for step in feed.steps(0) for batch in step.batches for index in batch.example_ids.tolist()]
    assert len(epoch) == 16 and sorted(index for index in epoch if index >= 40) == [40, 40, 41, 41, 42, 42]
    again = [index for step in feed.steps(1) for batch in step.batches for index in batch.example_ids.tolist()]
    assert again == epoch[8:]  # a resumed run takes up where it was
    text = first.tokenizer.decode(first.train[0].prompt_ids)
    assert "Be kind." in text and "q0" in text
    with pytest.raises(UserError, match=r"dataset_weights: a file of training rows stands in two of the paths"):
        prepared(capsys, "dpo", f"--train_dataset_path={plain},{plain}", "--dataset_weights=1,2")
    with pytest.raises(UserError, match=r'row_form: "src_tgt" is no form of the rows of this run'):
        prepared(capsys, "dpo", *paths, "--row_form=src_tgt")


def test_rows_with_special_token_text_are_told():
    read = ReadReport((Path("rows.jsonl"),), 2, 2, 2, {}, {}, {"messages": 2}, ())
    report = EncodingReport(rows=2, kept=2, special_text_rows=1, special_text_at="rows.jsonl:2")
    said = "train: rows with the text of special tokens: 1 (first: rows.jsonl:2); it is kept as text"
    [line] = [line for line in describe_rows("train", read, report) if "special" in line]
    assert line.startswith(said)
    assert said in (ROOT / "docs" / "data.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("terminal", "variables", "coloured"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(monkeypatch, terminal, variables, coloured):
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: terminal))
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert in_colour() is coloured
