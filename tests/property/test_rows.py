"""Whatever stands in a row: it is used, or refused with a reason and counted, or named as a mistake. Never lost, never a traceback."""

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from paddlealign.data.records import RowReading, read_records
from paddlealign.errors import UserError

KEYS = (
    "src", "tgt", "prompt", "chosen", "rejected", "response", "completion", "label", "sort", "messages", "conversations", "instruction",
    "input", "output", "history", "system", "tools", "margin", "completions", "scores", "question", "answers", "response_j", "response_k",
    "human_ref_A", "human_ref_B", "score_A", "score_B", "labels",
)  # fmt: skip
TEXTS = st.sampled_from(["", " ", "q", "a", "b", "\n\nHuman: q\n\nAssistant: a", "\n\nHuman: q\n\nAssistant: b", "<p>x</p>", "<b", "[1]"])
NUMBERS = st.sampled_from([0, 1, 2, -1, 0.5, 4.0, 10**400, float("nan"), True, False])
ROLES = st.sampled_from(["user", "assistant", "system", "tool", "human", "gpt", "function_call", None, 3])
MESSAGES = st.fixed_dictionaries(
    {}, optional={"role": ROLES, "content": TEXTS, "from": ROLES, "value": TEXTS, "text": TEXTS, "pm_score": NUMBERS}
)
LEAVES = st.one_of(TEXTS, NUMBERS, st.none(), MESSAGES)
VALUES = st.one_of(
    LEAVES, st.lists(LEAVES, max_size=4), st.lists(MESSAGES, min_size=1, max_size=3), st.lists(TEXTS, min_size=2, max_size=3)
)
USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
WHOLE = (
    {"src": ["q", "p"], "tgt": ["a", "b"]},
    {"src": "q", "response": ["a", "b"], "sort": [1, 0]},
    {"prompt": "q", "chosen": "a", "rejected": "b"},
    {"prompt": "q", "chosen": ["a", "b"], "rejected": ["c", "b"], "margin": 1},
    {"prompt": "q", "completion": "a", "label": True},
    {"prompt": "q", "response": "a"},
    {"chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "b"}]},
    {"messages": [USER, ANSWER], "system": "s"},
    {"chosen": "Human: q\n\nAssistant: a", "rejected": "Human: q\n\nAssistant: b"},
    {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "score_A": 4, "score_B": 1, "labels": 1},
    {"question": "q", "answers": [{"text": "a", "pm_score": 1}, {"text": "b", "pm_score": 0}]},
    {"question": "q", "response_j": "a", "response_k": "b"},
    {"prompt": "q", "completions": ["a", "b", "c"], "scores": [1, 1, 2]},
    {"instruction": "q", "input": "p", "output": "a", "history": [["q", "a"]]},
    {"instruction": "q", "chosen": "a", "rejected": "b"},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
)
CHANGED = st.builds(
    lambda row, change: {**row, **change}, st.sampled_from(WHOLE), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=2)
)
LESS = st.builds(lambda row, key: {k: v for k, v in row.items() if k != key}, st.sampled_from(WHOLE), st.sampled_from(KEYS))
ROWS = st.one_of(CHANGED, LESS, st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=7))
KINDS = st.sampled_from(["sft", "preference", "labelled", "prompt", "answered"])


@settings(max_examples=400)
@given(st.lists(ROWS, min_size=1, max_size=3), KINDS, st.sampled_from(["best_worst", "all", "adjacent"]))
def test_rows_in_are_rows_used_and_rows_refused(rows, kind, pairs):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
        refused = 0
        for line, row in enumerate(rows, start=1):
            alone = Path(folder) / "one.jsonl"
            alone.write_text("\n" * (line - 1) + json.dumps(row), "utf-8")
            try:
                records, report = read_records([alone], kind, RowReading(pairs=pairs))
            except UserError as error:
                assert f"{alone}:{line}: " in str(error) or f"{alone}: no usable row (" in str(error)
                refused += 1
            else:
                assert report.rows == report.used == 1 and records and all(record.source == f"{alone}:{line}" for record in records)
        try:
            records, report = read_records([path], kind, RowReading(pairs=pairs))
        except UserError as error:
            assert refused and (f"{path}:" in str(error))
        else:
            assert report.rows == len(rows) and report.used == len({record.source for record in records})
            assert sum(report.forms.values()) == report.rows
            assert report.rows - report.used <= sum(report.refused.values())
