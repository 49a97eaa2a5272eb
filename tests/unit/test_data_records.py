"""Files and rows: every form that is read, and what a user is told about the others."""

import gzip
import json
from pathlib import Path

import pytest

from paddlealign.data.example import Message
from paddlealign.data.records import read_records, read_rows
from paddlealign.data.sources import data_hash
from paddlealign.errors import UserError

SYSTEM, USER = {"role": "system", "content": "s"}, {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows) + "\n", "utf-8")
    return path


def read_one(tmp_path: Path, kind: str, row: object):
    records, _ = read_records([write(tmp_path / "d.json", row)], kind)
    assert len(records) == 1
    return records[0]


def turns(record) -> str:
    return " ".join(f"{message.role[0]}:{message.content}" for message in record.messages)


@pytest.mark.parametrize(
    ("row", "messages", "response", "all_turns"),
    [
        ({"src": "q", "tgt": "a"}, "u:q", "a", False),
        ({"src": ["q"], "tgt": ["a"]}, "u:q", "a", False),
        ({"src": ["q", "r"], "tgt": ["a", "b"]}, "u:q a:a u:r", "b", True),
        ({"src": "", "tgt": "text"}, "", "text", False),
        ({"src": "q", "tgt": "a", "system": "s", "extra": 1}, "s:s u:q", "a", False),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "system": "s"}, "s:s u:q", "a", True),
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>t</think>a"}]},
            "u:q",
            "<think>t</think>a",
            True,
        ),
    ],
)
def test_sft_rows(tmp_path, row, messages, response, all_turns):
    record = read_one(tmp_path, "sft", row)
    assert (turns(record), record.responses, record.score_all_turns) == (messages, (response,), all_turns)


@pytest.mark.parametrize(
    ("row", "messages", "pair"),
    [
        ({"prompt": "q", "chosen": "c", "rejected": "r"}, "u:q", ("c", "r")),
        ({"prompt": ["q", "a", "p"], "chosen": "c", "rejected": "r"}, "u:q a:a u:p", ("c", "r")),
        ({"prompt": "q", "chosen": "c", "rejected": "r", "system": "s"}, "s:s u:q", ("c", "r")),
        ({"prompt": [{"role": "user", "content": "q"}], "chosen": "c", "rejected": "r"}, "u:q", ("c", "r")),
        ({"chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "r"}]}, "u:q", ("a", "r")),
        ({"prompt": "q", "chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "r"}]}, "u:q", ("a", "r")),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [{**ANSWER, "content": "r"}], "system": "s"}, "s:s u:q", ("a", "r")),
        ({"chosen": [SYSTEM, USER, ANSWER], "rejected": [SYSTEM, USER, {**ANSWER, "content": "r"}]}, "s:s u:q", ("a", "r")),
        ({"src": ["q"], "tgt": [], "response": ["x", "y"], "sort": [1, 0]}, "u:q", ("x", "y")),
        ({"src": ["q", "p"], "tgt": ["a"], "response": ["x", "y"], "sort": [0, 1]}, "u:q a:a u:p", ("y", "x")),
    ],
)
def test_preference_rows(tmp_path, row, messages, pair):
    record = read_one(tmp_path, "preference", row)
    assert (turns(record), record.responses, record.score_all_turns) == (messages, pair, False)


@pytest.mark.parametrize(
    ("row", "messages", "answers"),
    [
        ({"prompt": "q", "response": "a"}, "u:q", [("a",)]),
        ({"src": ["q", "p"], "tgt": ["a"], "output": ["x", "y", ""]}, "u:q a:a u:p", [("x",), ("y",), ("",)]),
        ({"messages": [SYSTEM, USER], "response": "a"}, "s:s u:q", [("a",)]),
        ({"messages": [USER, ANSWER]}, "u:q", [("a",)]),
        ({"src": ["q", "p"], "tgt": ["a", "b"]}, "u:q a:a u:p", [("b",)]),
        ({"prompt": "q", "chosen": ["c", "d"], "rejected": ["r", "s"]}, "u:q", [("c", "r"), ("d", "s")]),
        ({"src": ["q"], "tgt": [], "response": ["x", "y"], "sort": [0, 1]}, "u:q", [("y", "x")]),
    ],
)
def test_answered_rows_give_a_record_for_each_answer_and_pair(tmp_path, row, messages, answers):
    found, _ = read_rows([write(tmp_path / "d.json", {**row, "id": 7})], "answered")
    assert [record.responses for _, record in found] == answers
    assert all((turns(record), record.score_all_turns, kept) == (messages, False, {**row, "id": 7}) for kept, record in found)


def test_a_margin_is_that_of_all_pairs_of_its_row(tmp_path):
    pair, several = {"prompt": "q", "chosen": "c", "rejected": "r"}, {"prompt": "q", "chosen": ["c", "d"], "rejected": ["r", "s"]}
    path = write(tmp_path / "d.json", {**pair, "margin": 1}, {**several, "margin": -0.5}, {**pair, "margin": None}, pair)
    assert [record.margin for record in read_records([path], "preference")[0]] == [1.0, -0.5, -0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"prompt": "q", "completion": "a", "label": True}, [("u:q", "a", True)]),
        ({"prompt": [SYSTEM, USER], "completion": [ANSWER], "label": False}, [("s:s u:q", "a", False)]),
        ({"prompt": "q", "completion": "a", "label": False, "system": "s"}, [("s:s u:q", "a", False)]),
        ({"src": ["q", "r"], "tgt": ["a"], "response": ["x"], "sort": [1]}, [("u:q a:a u:r", "x", True)]),
        ({"src": "q", "response": ["x"], "sort": [0]}, [("u:q", "x", False)]),
        ({"src": ["q"], "tgt": [], "response": ["x", "y"], "sort": [0, 1]}, [("u:q", "y", True), ("u:q", "x", False)]),
        ({"prompt": "q", "chosen": "c", "rejected": "r"}, [("u:q", "c", True), ("u:q", "r", False)]),
    ],
)
def test_labelled_rows(tmp_path, row, found):
    records, report = read_records([write(tmp_path / "d.json", row)], "labelled")
    assert [(turns(record), *record.responses, record.desirable) for record in records] == found
    assert (report.rows, report.records) == (1, len(found))


def test_lists_of_answers_are_paired_in_order_and_equal_pairs_counted(tmp_path):
    path = write(tmp_path / "d.json", {"prompt": "q", "chosen": ["a", "b", "c"], "rejected": ["x", "b", "z"]})
    records, report = read_records([path], "preference")
    assert [record.responses for record in records] == [("a", "x"), ("c", "z")]
    assert (report.rows, report.records, report.refused) == (1, 2, {"chosen equals rejected": 1})


def test_equal_sort_is_refused_and_counted(tmp_path):
    row = {"src": ["q"], "tgt": [], "response": ["x", "y"], "sort": [1, 0]}
    _, report = read_records([write(tmp_path / "d.json", row, {**row, "sort": [1, 1]})], "preference")
    assert report.refused == {"both answers have the same sort": 1}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"src": "q"}, "u:q"),
        ({"src": "q", "tgt": "a"}, "u:q"),
        ({"src": ["q", "p"], "tgt": ["a", "b"]}, "u:q a:a u:p"),
        ({"src": ["q", "p"], "tgt": ["a"]}, "u:q a:a u:p"),
        ({"prompt": "q", "chosen": "c", "rejected": "r"}, "u:q"),
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}, "s:s u:q"),
        ({"messages": [{"role": "user", "content": "q"}], "system": "s"}, "s:s u:q"),
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "system": ""}, "s:s u:q"),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, "u:q"),
    ],
)
def test_prompt_rows_keep_the_row_as_it_was(tmp_path, row, messages):
    row = {**row, "id": 7}
    ((found, record),), _ = read_rows([write(tmp_path / "d.json", row)], "prompt")
    assert found == row
    assert (turns(record), record.responses) == (messages, ())


@pytest.mark.parametrize(
    ("kind", "row", "words"),
    [
        ("sft", {"prompt": "q", "answer": "a"}, ["no 'src' and no 'tgt'", "found 'prompt', 'answer'", '{"src", "tgt"}']),
        ("sft", {"src": "q", "tgt": ""}, ["tgt is empty"]),
        ("sft", {"src": "q", "tgt": None}, ["tgt is null; it must be a text"]),
        ("sft", {"src": "q", "tgt": 3}, ["tgt is number 3"]),
        ("sft", {"src": ["a", "b"], "tgt": ["c"]}, ["src has 2 turns and tgt has 1"]),
        ("sft", {"messages": [{"role": "user", "content": "q"}]}, ['last message has role "user"', '"assistant"']),
        ("sft", {"messages": [{"role": "human", "content": "q"}]}, ["messages[0] has role text 'human'", "system, user, assistant"]),
        ("sft", {"messages": []}, ["messages is list []"]),
        (
            "sft",
            {"messages": [SYSTEM, USER, ANSWER], "system": "t"},
            ["the row has a system text, and messages begins with a system message"],
        ),
        ("prompt", {"messages": [SYSTEM, USER], "system": "t"}, ["the row has a system text, and messages begins with"]),
        ("preference", {"prompt": [SYSTEM, USER], "chosen": "c", "rejected": "r", "system": "t"}, ["and prompt begins with a system"]),
        ("preference", {"prompt": "p", "chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, ["are not those of prompt"]),
        ("preference", {"chosen": [USER, ANSWER], "rejected": [ANSWER]}, ["differ before their last message"]),
        ("preference", {"chosen": [ANSWER], "rejected": [ANSWER]}, ["there is no prompt"]),
        ("preference", {"chosen": [USER], "rejected": [USER, ANSWER]}, ['the last message of chosen has role "user"']),
        ("preference", {"prompt": "q", "chosen": [ANSWER], "rejected": "r"}, ["rejected is text 'r'"]),
        ("preference", {"src": "q", "tgt": "a"}, ["Use sft_main.py for such rows."]),
        ("preference", {"messages": [USER, ANSWER]}, ["Use sft_main.py for such rows."]),
        ("sft", {"prompt": "q", "chosen": "c", "rejected": "r"}, ["Use dpo_main.py or reward_main.py for such rows."]),
        ("sft", {"src": ["q"], "tgt": [], "response": ["x", "y"], "sort": [1, 0]}, ["Use dpo_main.py or reward_main.py for such rows."]),
        ("sft", [1, 2], ["found a list"]),
        ("sft", '{"src": "q", "tgt": "a", "src": "p"}', ['the key "src" stands twice in one object']),
        ("sft", '{"messages": [{"role": "user", "content": "a", "content": "b"}]}', ['the key "content" stands twice']),
        ("sft", '{"src": "q", "tgt": "a", "meta": {"a": 1, "a": 2}}', ['the key "a" stands twice']),
        ("sft", '{"src": "q", "tgt": "\\ud83d"}', ["half a surrogate pair"]),
        ("preference", {"prompt": "q", "chosen": "  ", "rejected": "r"}, ["chosen is empty"]),
        ("preference", {"prompt": "q", "chosen": ["a", "b"], "rejected": ["r"]}, ["2 chosen and 1 rejected"]),
        ("preference", {"prompt": ["q", "a"], "chosen": "c", "rejected": "r"}, ["prompt has 2 turns", "odd"]),
        ("preference", {"src": ["q"], "tgt": [], "response": ["x", "y"]}, ["no 'sort'"]),
        ("preference", {"prompt": "q", "completion": "a", "label": True}, ["Use dpo_main.py with loss_type kto for such rows."]),
        ("sft", {"prompt": "q", "completion": "a", "label": False}, ["no 'src'", "Use dpo_main.py with loss_type kto for such rows."]),
        ("labelled", {"prompt": "q", "completion": "a"}, ["no 'label'"]),
        ("labelled", {"completion": "a", "label": True}, ["no 'prompt'"]),
        ("labelled", {"prompt": "q", "completion": "a", "label": 1}, ["label is number 1; it must be true"]),
        ("labelled", {"prompt": "q", "completion": "  ", "label": True}, ["completion is empty"]),
        ("labelled", {"prompt": "q", "completion": [USER], "label": True}, ["it must hold one, with role assistant"]),
        ("labelled", {"prompt": "q", "completion": [ANSWER, ANSWER], "label": True}, ["it must hold one, with role assistant"]),
        ("labelled", {"src": "q", "response": ["x"], "sort": 1}, ["sort is number 1; it must be one number in a list"]),
        ("labelled", {"src": "q", "tgt": "a"}, ["no 'chosen'"]),
        ("preference", {"src": ["q"], "tgt": [], "response": ["x"], "sort": [1]}, ["response holds 1"]),
        ("preference", {"src": ["q"], "tgt": [], "response": ["x", "y"], "sort": "up"}, ["sort is text 'up'"]),
        ("preference", '{"src": "q", "response": ["x", "y"], "sort": [NaN, 1]}', ["sort is list [nan, 1]"]),
        ("sft", '{"src": "q", "tgt": ' + "1" * 5000 + "}", ["a whole number of more than 4,300 digits"]),
        ("preference", {"prompt": "q", "chosen": "c", "rejected": "r", "margin": "1"}, ["margin is text '1'; it must be a number"]),
        ("preference", {"prompt": "q", "chosen": "c", "rejected": "r", "margin": True}, ["margin is boolean True"]),
        ("preference", '{"prompt": "q", "chosen": "c", "rejected": "r", "margin": NaN}', ["margin is number nan"]),
        ("preference", {"prompt": "q", "chosen": "c", "rejected": "r", "margin": 10**400}, ["margin is number 1000"]),
        ("prompt", {"tgt": "a"}, ["no 'src'"]),
        ("sft", '{"src": "q", "tgt": "a"', [":4:24: not valid JSON"]),
    ],
)
def test_bad_rows_are_named(tmp_path, kind, row, words):
    good = {"sft": {"src": "q", "tgt": "a"}, "preference": {"prompt": "q", "chosen": "c", "rejected": "r"}, "prompt": {"src": "q"}}
    good["labelled"] = good["preference"]
    good = good[kind]
    path = write(tmp_path / "d.jsonl", good, "", good, row)
    with pytest.raises(UserError) as caught:
        read_records([path], kind)
    assert f"{path}:4" in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert str(caught.value).count("Allowed rows") == str(caught.value).count("llowed") - str(caught.value).count("allowed are") == 1


def test_the_first_bad_rows_are_listed_and_all_counted(tmp_path):
    path = write(tmp_path / "d.json", *[{"src": "q", "tgt": ""} for _ in range(9)], {"src": "q", "tgt": "a"})
    with pytest.raises(UserError, match="9 data rows are wrong") as caught:
        read_records([path], "sft")
    text = str(caught.value)
    assert "of 10" in text and "and 4 more" in text
    assert [f"{path}:{line}:" in text for line in range(1, 7)] == [True] * 5 + [False]


def test_python_literals_are_read_with_one_warning(tmp_path):
    row = "{'prompt': \"it's\", 'chosen': 'c', 'rejected': 'r \\\\d'}"
    path = write(tmp_path / "d.json", row, row, {"prompt": "q", "chosen": "c", "rejected": "r"})
    records, report = read_records([path], "preference")
    assert [record.messages[0].content for record in records] == ["it's", "it's", "q"]
    assert len(report.warnings) == 1
    assert "2 rows" in report.warnings[0] and str(path) in report.warnings[0]


def test_literals_run_no_code(tmp_path):
    path = write(tmp_path / "d.json", "{'src': __import__('os').getcwd(), 'tgt': 'a'}")
    with pytest.raises(UserError, match="not valid JSON"):
        read_records([path], "sft")


@pytest.mark.parametrize("indent", [None, 2])
def test_json_arrays_know_their_lines(tmp_path, indent):
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"src": "a", "tgt": "b"}, {"src": "c", "tgt": "d"}], indent=indent))
    records, _ = read_records([path], "sft")
    assert [record.source for record in records] == [f"{path}:{line}" for line in ([1, 1] if indent is None else [2, 6])]


def test_broken_arrays_name_the_line(tmp_path):
    path = write(tmp_path / "d.json", "[", '{"src": "a", "tgt": "b"},', '{"src": "a" "tgt": "b"}', "]")
    with pytest.raises(UserError, match=r"d\.json:3:13: "):
        read_records([path], "sft")
    path = write(tmp_path / "e.json", "[", '{"src": "a", "tgt": "b"}', '{"src": "a", "tgt": "b"}', "]")
    with pytest.raises(UserError, match=r"e\.json:3:1: "):
        read_records([path], "sft")


def test_a_key_that_stands_twice_is_named_in_every_spelling(tmp_path):
    doubled = '{"src": "q",\n "src": "p", "tgt": "a"}'
    for text in (f"[{{}},\n{doubled}]", f'{{"src":\n"q", "tgt": "a"}}\n{doubled}'):
        path = tmp_path / "d.json"
        path.write_text(text)
        with pytest.raises(UserError, match=r'd\.json:[23]: the key "src" stands twice'):
            read_records([path], "sft")


def test_other_spellings_of_a_file(tmp_path):
    """Pretty-printed objects, a Python list, gzip, a byte order mark, CRLF, and U+2028 inside a text."""
    row = {"src": "a\u2028b", "tgt": "c"}
    pretty = write(tmp_path / "a.json", json.dumps(row, indent=1), json.dumps(row, indent=1))
    literal = write(tmp_path / "b.json", f"\n[{row!r},\n {row!r}]")
    packed = tmp_path / "c.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(row, ensure_ascii=False).encode()))
    marked = tmp_path / "d.json"
    marked.write_bytes(b"\xef\xbb\xbf" + json.dumps(row).encode() + b"\r\n" + json.dumps(row).encode() + b"\r\n")
    records, report = read_records([pretty, literal, packed, marked], "sft")
    assert [record.messages for record in records] == [(Message("user", "a\u2028b"),)] * 7
    assert [record.source.rsplit(":")[-1] for record in records] == ["1", "5", "2", "3", "1", "1", "2"]
    assert len(report.warnings) == 1


def test_objects_side_by_side_are_found_wherever_a_block_ends(tmp_path, monkeypatch):
    rows = write(tmp_path / "rows.json", '{"src": "a", "tgt": "b"}  {"src": "c", "tgt": "d"} {"src": "e", "tgt": "f"}')
    for size in range(1, 40):
        monkeypatch.setattr("paddlealign.data.row_bytes.BLOCK", size)
        assert [record.responses for record in read_records([rows], "sft")[0]] == [("b",), ("d",), ("f",)], size


def test_files_that_cannot_be_read(tmp_path):
    empty = write(tmp_path / "empty.json", "")
    with pytest.raises(UserError, match=r"empty\.json: the file is empty"):
        read_records([empty], "sft")
    latin = tmp_path / "latin.json"
    latin.write_bytes(b'{"src": "a", "tgt": "b"}\n{"src": "caf\xe9", "tgt": "b"}\n')
    with pytest.raises(UserError, match=r"latin\.json:2:13: not UTF-8"):
        read_records([latin], "sft")
    wide = tmp_path / "wide.json"
    wide.write_bytes('{"src": "a"}'.encode("utf-16"))
    with pytest.raises(UserError, match="UTF-16"):
        read_records([wide], "sft")
    broken = tmp_path / "broken.json.gz"
    broken.write_bytes(b"\x1f\x8b nothing")
    with pytest.raises(UserError, match=r"broken\.json\.gz: cannot be read"):
        read_records([broken], "sft")
    with pytest.raises(UserError, match="No data file"):
        read_records([], "sft")


def test_the_hash_is_of_the_contents(tmp_path):
    a, b = write(tmp_path / "a", "1"), write(tmp_path / "b", "2")
    same = write(tmp_path / "c", "1")
    assert data_hash([a, b]) == data_hash([same, b])
    assert len({data_hash([a, b]), data_hash([b, a]), data_hash([a]), data_hash([a, a])}) == 4
