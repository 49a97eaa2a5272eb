"""The forms that rows of well-known collections have: what is read from each, what is refused, and what the user is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from paddlealign.data.example import Message, Record
from paddlealign.data.records import ReadReport, RowReading, read_records
from paddlealign.errors import UserError

USER, ANSWER, OTHER = ({"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a"), ("assistant", "b")))
PAIR = {"prompt": "q", "chosen": "c", "rejected": "r"}
HH = "\n\nHuman: q\n\nAssistant: a\n\nHuman: p\n\nAssistant:"


def read(tmp_path: Path, kind: str, *rows: object, **how: Any) -> tuple[list[Record], ReadReport]:
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    records, report = read_records([path], kind, RowReading(**how))
    assert report.rows == len(rows) and report.records == len(records) and report.used == len({record.source for record in records})
    return records, report


def turns(record: Record) -> str:
    return " ".join(f"{message.role[0]}:{message.content}" for message in record.messages)


def shp(a: float, b: float, label: int) -> dict[str, Any]:
    return {"history": "q", "human_ref_A": "x", "human_ref_B": "y", "score_A": a, "score_B": b, "labels": label}


@pytest.mark.parametrize(
    ("form", "row", "messages", "pairs"),
    [
        ("hh", {"chosen": f"{HH} c", "rejected": f"{HH} r\n"}, "u:q a:a u:p", ["c r"]),
        ("hh", {"prompt": HH, "chosen": " c", "rejected": " r"}, "u:q a:a u:p", ["c r"]),
        ("hh", {"prompt": "Human: q ", "chosen": " c", "rejected": " r"}, "u:q", ["c r"]),
        ("hh", {"prompt": HH, "chosen": f"{HH} c", "rejected": f"{HH} r"}, "u:q a:a u:p", ["c r"]),
        ("hh", {"chosen": "\n\nHuman: Is Human: a word?\nyes\n\nAssistant: c\n\nd",
                "rejected": "\n\nHuman: Is Human: a word?\nyes\n\nAssistant: r"}, "u:Is Human: a word?\nyes", ["c\n\nd r"]),
        ("shp", shp(4, 2, 1), "u:q", ["x y"]),
        ("shp", shp(-3, 1, 0), "u:q", ["y x"]),
        ("stack_exchange", {"question": "q", "answers": [{"text": "x", "pm_score": 1}, {"text": "y", "pm_score": 5}]}, "u:q", ["y x"]),
        ("stack_exchange", {"qid": 1, "question": "q", "response_j": "x", "response_k": "y"}, "u:q", ["x y"]),
        ("ranked", {"prompt": "q", "completions": ["x", "y", "z"], "scores": [1, 3, 2]}, "u:q", ["y x"]),
        ("ranked", {"prompt": [USER], "answers": ["x", "y"], "scores": [0.5, 0.25]}, "u:q", ["x y"]),
        ("alpaca", {"instruction": "do", "input": "it", "chosen": "c", "rejected": "r"}, "u:do\nit", ["c r"]),
        ("sharegpt", {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "c"},
                      "rejected": {"from": "gpt", "value": "r"}}, "u:q", ["c r"]),
        ("messages", {"messages": [USER], "chosen": "c", "rejected": "r"}, "u:q", ["c r"]),
        ("messages", {"messages": [USER], "chosen": ANSWER, "rejected": [OTHER]}, "u:q", ["a b"]),
        ("chatpair", {"chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, "u:q", ["a b"]),
        ("chatpair", {"prompt": "q", "chosen": ANSWER, "rejected": OTHER}, "u:q", ["a b"]),
        ("chatpair", {"prompt": "q", "prompt_id": "1", "messages": [USER, ANSWER], "chosen": [USER, ANSWER], "rejected": [USER, OTHER],
                      "score_chosen": 8.5, "score_rejected": 2.0}, "u:q", ["a b"]),
        ("plaintext", {"prompt": "q", "response": "x", "chosen": "c", "rejected": "r"}, "u:q", ["c r"]),
        ("paddlenlp", {"src": ["q"], "tgt": [], "response": ["x", "y"], "sort": [0, 1]}, "u:q", ["y x"]),
    ],
)  # fmt: skip
def test_pairs_of_every_form_are_found_out_and_read(tmp_path, form, row, messages, pairs):
    records, report = read(tmp_path, "preference", row)
    assert report.forms == {form: 1}
    assert [(turns(record), " ".join(map(str, record.responses))) for record in records] == [(messages, pair) for pair in pairs]
    labelled, _ = read(tmp_path, "labelled", row)
    assert [(*record.responses, record.desirable) for record in labelled] == [
        (text, side == 0) for pair in records for side, text in enumerate(pair.responses)
    ]
    [target], _ = read(
        tmp_path, "sft", row, row_form=form if form not in ("alpaca", "sharegpt", "messages", "chatpair", "plaintext") else "pairs"
    )
    assert (turns(target), target.responses) == (messages, records[0].responses[:1])


@pytest.mark.parametrize(
    ("pairs", "made", "left_out"),
    [("best_worst", ["w z"], 0), ("all", ["w x", "w y", "w z", "x z", "y z"], 1), ("adjacent", ["w x", "y z"], 1)],
)
def test_pairs_of_a_ranked_list(tmp_path, pairs, made, left_out):
    texts, scores = ["z", "x", "y", "w"], [0.0, 1.5, 1.5, 3.0]
    row, same = {"prompt": "q", "completions": texts, "scores": scores}, {"prompt": "q", "completions": ["x"], "scores": [1]}
    records, report = read(tmp_path, "preference", row, same, pairs=pairs)
    assert [" ".join(record.responses) for record in records] == made
    assert report.refused == {"fewer than two answers": 1, **({"answers of equal score": left_out} if left_out else {})}
    answers = [{"text": text, "pm_score": score} for text, score in zip(texts, scores, strict=True)]
    records, _ = read(tmp_path, "preference", {"question": "q", "answers": answers}, pairs=pairs)
    assert [" ".join(record.responses) for record in records] == made
    [target], _ = read(tmp_path, "sft", {**row, "margin": 2}, pairs=pairs, row_form="ranked")
    assert (target.responses, target.margin) == (("w",), 0.0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (shp(3, 2, 1), "score ratio below 2"),
        (shp(0, 0, 1), "score ratio below 2"),
        (shp(4, 2, 0), "labels and scores contradict each other"),
        ({**shp(4, 2, 1), "human_ref_B": "x"}, "answers that are the same"),
        ({"chosen": f"{HH} c", "rejected": f"{HH} c"}, "chosen equals rejected"),
        ({"chosen": f"{HH} c", "rejected": HH}, "a turn of the transcript is empty"),
        ({"chosen": f"{HH} c", "rejected": "\n\nHuman: p\n\nAssistant: r"}, "the transcripts differ before their last turn"),
        ({"chosen": f"{HH} c\n\nHuman: s", "rejected": f"{HH} c\n\nHuman: t"}, "take turns"),
        ({"chosen": "\n\nHuman: q\n\nHuman: p\n\nAssistant: c", "rejected": "\n\nHuman: q\n\nHuman: p\n\nAssistant: r"}, "take turns"),
        ({"question": "q", "answers": []}, "fewer than two answers"),
        ({"question": "q", "response_j": "x", "response_k": "x"}, "answers that are the same"),
    ],
)
def test_rows_of_collections_that_teach_nothing_are_counted(tmp_path, row, reason):
    good = {"chosen": f"{HH} c", "rejected": f"{HH} r"} if "chosen" in row else shp(4, 2, 1)
    records, report = read(tmp_path, "preference", good, row)
    assert (len(records), report.used, list(report.refused.values())) == (1, 1, [1])
    [told] = report.refused
    assert reason in told and report.refused_at == {told: f"{tmp_path / 'd.jsonl'}:2"}


@pytest.mark.parametrize(
    ("form", "row", "messages", "answer", "all_turns"),
    [
        ("plaintext", {"prompt": "q", "response": "a"}, "u:q", "a", False),
        ("plaintext", {"prompt": ["q", "b", "p"], "completion": "a", "system": "s"}, "s:s u:q a:b u:p", "a", False),
        ("chatpair", {"prompt": [USER], "completion": [ANSWER]}, "u:q", "a", False),
        ("chatpair", {"prompt": USER, "response": ANSWER}, "u:q", "a", False),
        ("hh", {"prompt": HH, "response": " c"}, "u:q a:a u:p", "c", False),
        ("alpaca", {"instruction": "do", "input": "", "output": "a"}, "u:do", "a", False),
        ("alpaca", {"instruction": "do", "input": "it", "output": "a", "history": [["q", "b"]], "system": "s"},
         "s:s u:q a:b u:do\nit", "a", True),
        ("alpaca", {"instruction": "do", "input": None, "output": "a", "history": []}, "u:do", "a", False),
        ("sharegpt", {"id": "7", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "u:q", "a", True),
        ("sharegpt", {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
         "s:s u:q", "a", True),
        ("sharegpt", {"conversations": [USER, ANSWER], "system": "s"}, "s:s u:q", "a", True),
        ("messages", {"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "u:q", "a", True),
        ("messages", {"prompt": "q", "messages": [USER, {**ANSWER, "content": "<think>t</think>a"}]}, "u:q", "<think>t</think>a", True),
        ("src_tgt", {"src": "q", "tgt": "a"}, "u:q", "a", False),
    ],
)  # fmt: skip
def test_answers_of_every_form_are_found_out_and_read(tmp_path, form, row, messages, answer, all_turns):
    [record], report = read(tmp_path, "sft", row)
    assert (report.forms, turns(record), record.responses, record.score_all_turns) == ({form: 1}, messages, (answer,), all_turns)
    if form in ("alpaca", "sharegpt", "messages", "src_tgt"):
        [prompt], _ = read(tmp_path, "prompt", row)
        assert prompt.responses == () and turns(prompt) == messages


def test_calls_and_results_of_a_sharegpt_conversation_are_kept(tmp_path):
    call = {"name": "weather", "arguments": {"city": "Oslo"}}
    said = [("human", "rain?"), ("function_call", json.dumps(call)), ("observation", "yes"), ("gpt", "Take an umbrella.")]
    row = {"conversations": [{"from": name, "value": value} for name, value in said], "tools": json.dumps([{"name": "weather"}])}
    [record], _ = read(tmp_path, "sft", row)
    assert record.tools == ({"name": "weather"},)
    assert record.messages[1] == Message("assistant", None, ({"type": "function", "function": call},))
    assert (record.messages[2], record.responses) == (Message("tool", "yes"), ("Take an umbrella.",))


def test_a_collected_conversation_that_does_not_end_in_an_answer_is_counted(tmp_path):
    said = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    records, report = read(tmp_path, "sft", {"conversations": said}, {"conversations": [*said, said[0]]})
    assert (len(records), report.refused) == (1, {"the conversation does not end in an answer": 1})
    with pytest.raises(UserError, match='the last message has role "user"'):
        read(tmp_path, "sft", {"messages": [USER, ANSWER, USER]})


def test_html_becomes_text_and_code_stays(tmp_path):
    question = "<p>Why does <code>a &lt; b</code>\nfail <b>here</b>?</p>\n<pre><code>if a &lt; b:\n    pass\n</code></pre>"
    answers = [{"text": "<ul><li>x</li><li>y</li></ul>", "pm_score": 2}, {"text": "a < b, and b > a", "pm_score": 1}]
    [record], _ = read(tmp_path, "preference", {"question": question, "answers": answers})
    assert turns(record) == "u:Why does <code>a < b</code> fail here?\n\n<code>if a < b:\n    pass\n</code>"
    assert record.responses == ("- x\n- y", "a < b, and b > a")


def test_a_change_of_form_is_told_by_line(tmp_path):
    rows = [PAIR, PAIR, {"prompt": "q", "completions": ["x", "y"], "scores": [1, 0]}, PAIR, shp(4, 2, 1), shp(2, 4, 0)]
    records, report = read(tmp_path, "preference", *rows)
    assert len(records) == 6 and report.forms == {"plaintext": 3, "ranked": 1, "shp": 2}
    assert [warning.replace(str(tmp_path), "") for warning in report.warnings] == [
        "/d.jsonl:3: the first of 1 rows in the ranked form; the first rows of the file are in the plaintext form",
        "/d.jsonl:5: the first of 2 rows in the shp form; the first rows of the file are in the plaintext form",
    ]


def test_a_row_without_a_form_is_held_to_that_of_its_file(tmp_path):
    with pytest.raises(UserError, match=r"d\.jsonl:2: no 'score_B'; found 'history', 'human_ref_A'"):
        read(tmp_path, "preference", shp(4, 2, 1), {key: value for key, value in shp(4, 2, 1).items() if key != "score_B"})
    with pytest.raises(UserError, match=r"d\.jsonl:2: no 'chosen' and no 'rejected'; found 'prompt'"):
        read(tmp_path, "preference", PAIR, {"prompt": "q"})


def test_the_form_that_a_user_asks_for_is_taken(tmp_path):
    row = {"prompt": "Human: q", "chosen": "c", "rejected": "r"}
    assert turns(read(tmp_path, "preference", row)[0][0]) == "u:q"
    assert turns(read(tmp_path, "preference", row, row_form="plaintext")[0][0]) == "u:Human: q"
    assert turns(read(tmp_path, "preference", row, row_form="pairs")[0][0]) == "u:Human: q"
    with pytest.raises(UserError, match=r"d\.jsonl:1: no 'instruction'; found 'prompt'"):
        read(tmp_path, "preference", row, row_form="alpaca")
    with pytest.raises(UserError, match=r'row_form: "src_tgt" is no form of the rows of this run; allowed: auto, paddlenlp, hh, alpaca'):
        read(tmp_path, "preference", row, row_form="src_tgt")
    with pytest.raises(UserError, match=r"set row_form to hh\."):
        read(tmp_path, "sft", row)
    with pytest.raises(UserError, match=r"no 'src' and no 'tgt'.* set row_form to shp\."):
        read(tmp_path, "sft", shp(4, 2, 1))
    with pytest.raises(UserError, match=r"set row_form to pairs\."):
        read(tmp_path, "sft", PAIR)
    assert read(tmp_path, "sft", PAIR, row_form="pairs")[0][0].responses == ("c",)


@pytest.mark.parametrize(
    ("kind", "row", "words"),
    [
        ("sft", {"instruction": "do", "output": "a", "history": "x"}, "history is text 'x'; it must be a list"),
        ("sft", {"instruction": "do", "output": "a", "history": [["x"]]}, "history[0] is list ['x']; it must be [question, answer]"),
        ("sft", {"instruction": "do", "output": 3}, "output is number 3"),
        ("sft", {"conversations": [{"from": "robot", "value": "x"}]}, "conversations[0] is from text 'robot'; allowed are human"),
        ("sft", {"conversations": [{"from": "gpt"}]}, "a turn is {"),
        ("sft", {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "x"}]},
         "is JSON with name and arguments"),
        ("sft", {"conversations": "x"}, "conversations is text 'x'"),
        ("preference", {"prompt": "q", "completions": ["x"], "scores": [1, 2]}, "they must be lists of the same length"),
        ("preference", {"prompt": "q", "completions": ["x", "y"], "scores": [1, None]}, "scores[1] is null"),
        ("preference", {"question": "q", "answers": [{"text": "x"}]}, "answers[0] is object"),
        ("preference", {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "human", "value": "c"}, "rejected": "r"},
         "chosen is object"),
        ("preference", {"conversations": [{"from": "gpt", "value": "q"}], "chosen": "c", "rejected": "r"},
         "the last turn of conversations"),
        ("preference", {"chosen": f"{HH} c", "rejected": "r"}, 'rejected does not begin with "Human:"'),
        ("preference", {**shp(4, 2, 1), "score_A": "4"}, "score_A is text '4'"),
    ],
)  # fmt: skip
def test_bad_rows_of_the_collections_are_named(tmp_path, kind, row, words):
    with pytest.raises(UserError) as caught:
        read(tmp_path, kind, row)
    assert f"{tmp_path / 'd.jsonl'}:1: " in str(caught.value) and words in str(caught.value)


def test_columns_and_a_system_prompt(tmp_path):
    row = {"question": "q", "good": "c", "bad": "r", "prompt": "x", "answers": [], "rule": "s"}
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad", "system": "rule"}
    records, _ = read(tmp_path, "preference", row, {**row, "rule": None}, columns=columns, system_prompt="t")
    assert [turns(record) for record in records] == ["s:s u:q", "s:t u:q"]
    assert records[0].responses == ("c", "r")
    [record], _ = read(
        tmp_path, "sft", {"talk": [{"role": "system", "content": "own"}, USER, ANSWER]}, columns={"messages": "talk"}, system_prompt="t"
    )
    assert turns(record) == "s:own u:q"
    [record], _ = read(tmp_path, "sft", {"src": "", "tgt": "text"}, system_prompt="t")
    assert record.messages == ()
    with pytest.raises(UserError, match=r"d\.jsonl:1: no 'query', which prompt_key names for all files, dev too; found 'question', 'good'"):
        read(tmp_path, "preference", row, columns={**columns, "prompt": "query"})
