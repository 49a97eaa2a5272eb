"""Answers during training: their rows, their figures, and which of them stay."""

import json
from pathlib import Path

import pytest

from paddlealign.data.example import Record
from paddlealign.data.records import read_records
from paddlealign.evaluation.samples import (
    drop_samples,
    prompt_columns,
    read_references,
    response_length,
    sample_rows,
    samples_file,
    show_samples,
    summarise_samples,
)
from paddlealign.models.tensor_files import write_json_lines

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 3}}}
ROWS = [
    {"prompt": "What is 2 plus 3?"},
    {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 plus 3?"}]},
    {
        "prompt": [
            {"role": "user", "content": "What is 2 plus 3?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "5", "tool_call_id": "1", "name": "add"},
        ],
        "tools": [{"type": "function", "function": {"name": "add"}}],
    },
]


def records(rows: list[dict], folder: Path) -> list[Record]:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return read_records([path], "prompt")[0]


def test_a_written_prompt_is_read_as_the_same_prompt(tmp_path: Path) -> None:
    read = records(ROWS, tmp_path)
    assert [prompt_columns(record) for record in read] == ROWS
    asked = [{"src": ["Hi", "And now?"], "tgt": ["Hello"]}, {"messages": [{"role": "user", "content": "Hi"}]}]
    for record in records(asked, tmp_path):
        [again] = records([prompt_columns(record)], tmp_path)
        assert (again.messages, again.tools) == (record.messages, record.tools)


def test_rows_hold_what_is_known_and_figures_count_what_they_hold() -> None:
    plain = sample_rows(ROWS[:2], ["5", ""], [1, 0], None, None)
    assert plain == [{**ROWS[0], "response": "5", "length": 1}, {**ROWS[1], "response": "", "length": 0}]
    assert summarise_samples(plain) == {"samples/length": 0.5}
    scored = sample_rows(ROWS, ["5", "6", "7"], [1, 2, 6], ["a", "b", "c"], [0.1234567, None, -1.0])
    assert scored[0] == {**ROWS[0], "response": "5", "reference_response": "a", "score": 0.123457, "length": 1}
    assert "score" not in scored[1] and scored[2]["reference_response"] == "c"
    assert summarise_samples(scored) == {"samples/length": 3.0, "samples/score": pytest.approx((0.123457 - 1) / 2)}
    judged = sample_rows(ROWS[:2], ["5", "6"], [1, 2], ["a", "b"], None, [1.0, 0.5])
    assert judged[1] == {**ROWS[1], "response": "6", "reference_response": "b", "verdict": 0.5, "length": 2}
    assert summarise_samples(judged) == {"samples/length": 1.5, "samples/judge": 0.75}
    assert [response_length(answer, (2, 7)) for answer in ([5, 2], [5, 2, 5], [7], [])] == [1, 3, 0, 0]


def test_the_references_answers_come_back_for_the_same_prompts_only(tmp_path: Path) -> None:
    assert read_references(tmp_path, ROWS) is None
    write_json_lines(samples_file(tmp_path, 0), sample_rows(ROWS, ["5", "\ud800", "7"], [1, 1, 1], ["a", "b", "c"], None))
    assert read_references(tmp_path, ROWS) == ["a", "b", "c"]
    assert read_references(tmp_path, ROWS[:2]) is None and read_references(tmp_path, ROWS[::-1]) is None
    write_json_lines(samples_file(tmp_path, 0), sample_rows(ROWS, ["5", "6", "7"], [1, 1, 1], None, None))
    assert read_references(tmp_path, ROWS) is None


def test_answers_of_later_steps_go_and_nothing_else(tmp_path: Path) -> None:
    for step in (0, 9, 10, 11):
        write_json_lines(samples_file(tmp_path, step), [])
    for name in ("step-12.jsonl.kept", "step-x.jsonl", "mine.jsonl"):
        (tmp_path / "samples" / name).touch()
    drop_samples(tmp_path, after=9)
    left = {path.name for path in (tmp_path / "samples").iterdir()}
    assert left == {"step-0.jsonl", "step-9.jsonl", "step-12.jsonl.kept", "step-x.jsonl", "mine.jsonl"}
    drop_samples(tmp_path / "nowhere", after=0)


def test_the_screen_shows_figures_and_a_few_lines() -> None:
    rows = sample_rows([*ROWS, *ROWS], ["5\nis  it"] * 6, [3] * 6, ["no " * 60, *["5\nis  it"] * 5], [0.5] * 6)
    first, lines = show_samples(Path("samples/step-4.jsonl"), 4, rows)
    assert first == "samples at step 4: 6 answers of 3.0 tokens, mean score +0.500, in samples/step-4.jsonl"
    assert len(lines) == 3 and lines[1] == "  What is 2 plus 3? -> 5 is it" and lines[2] == "  5 -> 5 is it"
    assert lines[0].startswith("  What is 2 plus 3? -> 5 is it (reference: no no no ") and lines[0].endswith("...)")


def test_prompts_and_answers_stay_as_they_are_in_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLEALIGN_LANG", "zh")
    _, lines = show_samples(Path("s.jsonl"), 4, sample_rows(ROWS[:1], ["My answer is 4: the model is whole."], [3], ["4 pairs"], None))
    assert lines == ["  What is 2 plus 3? -> My answer is 4: the model is whole. (参考模型：4 pairs)"]
