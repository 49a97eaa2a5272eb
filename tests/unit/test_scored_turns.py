"""Which answers of a conversation are scored: score_turns, the marks in a row's messages, and a template's generation blocks."""

import json
from pathlib import Path

import pytest

from paddlealign.data.answer_spans import RowRefusedError
from paddlealign.data.encoding import Limits, encode_all
from paddlealign.data.example import scored_as
from paddlealign.data.records import RowReading, read_records
from paddlealign.data.rendering import render
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "tokenizers"
QWEN = Tokenizer.load(GOLDEN / "qwen2")
NAMES = {"user": "human", "assistant": "gpt", "system": "system"}


def talk(*marks: dict, key: str = "messages") -> dict:
    """q1, a1, q2, a2, ... with the marks of each assistant's message."""
    turns = []
    for number, mark in enumerate(marks, 1):
        turns += [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}", **mark}]
    if key == "messages":
        return {"messages": turns}
    turns = [{"from": NAMES[turn.pop("role")], "value": turn.pop("content"), **turn} for turn in turns]
    return {"conversations": turns}


def read(tmp_path: Path, row: dict, kind: str = "sft", form: str = "auto"):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row), "utf-8")
    [record] = read_records([path], kind, RowReading(form))[0]
    return record


def scored(tmp_path: Path, row: dict, score_turns: str = "all", template: str = "chatml") -> list[str]:
    """The texts that are scored, without end tokens."""
    [rendered] = render(load_template(QWEN, template), scored_as(read(tmp_path, row), score_turns))
    assert rendered.spans[-1][1] == len(rendered.text) and rendered.boundary == rendered.spans[0][0]
    return [rendered.text[start:end].removesuffix("<|im_end|>") for start, end in rendered.spans]


NO, YES, OFF, ON = {"weight": 0}, {"weight": 1}, {"train": False}, {"train": True}


@pytest.mark.parametrize("template", ["chatml", "plain", "none"])
@pytest.mark.parametrize("key", ["messages", "conversations"])
@pytest.mark.parametrize(
    ("marks", "score_turns", "answers"),
    [
        (({}, {}, {}), "all", ["a1", "a2", "a3"]),
        (({}, {}, {}), "last", ["a3"]),
        ((NO, {}, {}), "all", ["a2", "a3"]),
        (({}, OFF, {}), "all", ["a1", "a3"]),
        (({}, {}, NO), "all", ["a1", "a2"]),
        ((YES, {}, OFF), "all", ["a1", "a2"]),
        ((YES, {}, ON), "marked", ["a1", "a3"]),
        ((ON, NO, {}), "marked", ["a1"]),
        ((NO, YES, ON), "last", ["a3"]),
    ],
)
def test_what_the_run_asks_and_the_row_marks(tmp_path, marks, score_turns, answers, key, template):
    assert scored(tmp_path, talk(*marks, key=key), score_turns, template) == answers


@pytest.mark.parametrize(
    ("marks", "score_turns", "said"),
    [
        (({}, {}), "marked", r'no answer is marked to be scored \("weight": 1 or "train": true; score_turns is marked\)'),
        ((NO, OFF), "all", r'the row marks every answer that would be scored as not to be \("weight": 0 or "train": false\)'),
        ((YES, NO), "last", "the row marks every answer"),
    ],
)
def test_a_row_with_nothing_to_score_is_refused_and_counted(tmp_path, marks, score_turns, said):
    records = [scored_as(read(tmp_path, row), score_turns) for row in (talk(*marks), talk(ON))]
    report = encode_all(records, QWEN, load_template(QWEN, "chatml"), Limits(100)).report
    assert (report.kept, sum(report.refused.values())) == (1, 1)
    with pytest.raises(RowRefusedError, match=said):
        scored(tmp_path, talk(*marks), score_turns)


def detail(*parts: tuple[int, int, bool]) -> dict:
    return {"train_detail": [{"begin_offset": a, "end_offset": b, "train": train} for a, b, train in parts]}


@pytest.mark.parametrize("template", ["chatml", "plain", "none", "llama2", "vicuna"])
@pytest.mark.parametrize("score_turns", ["all", "marked"])
def test_parts_of_an_answer(tmp_path, template, score_turns):
    row = talk(detail((0, 0, False), (1, 1, True)), {"weight": 0}, detail((0, 0, True)))
    [rendered] = render(load_template(QWEN, template), scored_as(read(tmp_path, row), score_turns))
    first, last = (rendered.text[start:end] for start, end in rendered.spans)
    # The end token goes with the last character; the text ends where nothing behind is scored.
    assert (first.replace(" ", ""), last) == ("1<|im_end|>", "a") and rendered.text.endswith(last)


def test_parts_are_counted_in_the_text_as_it_stands_in_the_row(tmp_path):
    row = {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": " ab cd ", **detail((1, 2, True), (4, 6, True))}]
    }
    assert scored(tmp_path, row) == ["ab", "cd "]
    assert scored(tmp_path, row, template="llama2") == ["ab", "cd "]  # trimmed, and a space before the end token


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ({"weight": 0.5}, r"messages\[1\]\.weight is 0\.5; it must be 0 \(not scored\) or 1"),
        ({"weight": True}, r"weight is True; it must be 0"),
        ({"train": "yes"}, r"messages\[1\]\.train is 'yes'; it must be true or false"),
        ({"weight": 1, "train": False}, "weight 1 and train false, which say the opposite"),
        ({**detail((0, 0, True)), "train": False}, "train_detail and train say the opposite"),
        ({"train_detail": [{"begin_offset": 0, "end_offset": 2, "train": True}]}, r"train_detail\[0\] is .* The text has 2 characters"),
        ({"train_detail": [{"begin_offset": 0, "train": True}]}, r"train_detail is a list of \{\"begin_offset\""),
        ({"train_detail": "all"}, r"train_detail is 'all'; it must be a list"),
    ],
)
def test_marks_that_cannot_be_meant(tmp_path, mark, said):
    with pytest.raises(UserError, match=rf"rows\.jsonl:1: .*{said}"):
        read(tmp_path, talk(mark))


def test_only_assistants_are_scored(tmp_path):
    row = talk({})
    row["messages"][0]["train"] = True
    with pytest.raises(UserError, match=r"messages\[0\] has role user and is marked to be scored; only an assistant's turns are"):
        read(tmp_path, row)
    row["messages"][0] |= {"train": False, "weight": 0}
    assert scored(tmp_path, row) == ["a1"]


def test_the_answers_of_pairs_are_scored_whole(tmp_path):
    message = {"role": "assistant", "content": "a"}
    pair = {"prompt": "q", "chosen": [message | ON], "rejected": [message | {"content": "b"}]}
    assert read(tmp_path, pair, "preference").responses == ("a", "b")
    for mark in (NO, OFF, detail((0, 0, True))):
        with pytest.raises(UserError, match="chosen is marked not to be scored, or only in part"):
            read(tmp_path, {**pair, "chosen": [message | mark]}, "preference")
    reply = {"prompt": [{"role": "user", "content": "q"}], "completion": [message | OFF]}
    with pytest.raises(RowRefusedError, match="the row marks every answer"):
        scored(tmp_path, reply)


def blocks(tmp_path: Path, answer: str) -> str:
    """A chat template, as a file, that writes an assistant's text so."""
    path = tmp_path / "chat.jinja"
    frame = "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}" + answer + "{% else %}{{ m.content }}<|im_end|>{% endif %}\n"
    path.write_text(
        "{% for m in messages %}" + frame + "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", "utf-8"
    )
    return str(path)


def test_generation_blocks_and_marks_together(tmp_path):
    whole = blocks(tmp_path, "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}")
    assert scored(tmp_path, talk({}, NO, {}), "all", whole) == ["a1", "a3"]
    assert scored(tmp_path, talk({}, NO, {}), "last", whole) == ["a3"]
    assert scored(tmp_path, talk({}, detail((1, 1, True)), {}), "all", whole) == ["a1", "2", "a3"]


def test_a_block_that_holds_less_than_the_answer_decides(tmp_path):
    part = blocks(tmp_path, "{% generation %}{{ m.content[:1] }}{% endgeneration %}{{ m.content[1:] }}<|im_end|>")
    assert scored(tmp_path, talk({}, {}), "all", part) == ["a", "a"]
    nothing = blocks(tmp_path, "{% generation %}{% endgeneration %}{{ m.content }}<|im_end|>")
    with pytest.raises(RowRefusedError, match="generation blocks leave no answer to score"):
        scored(tmp_path, talk({}, {}), "all", nothing)
    pair = read(tmp_path, {"prompt": "q", "chosen": "ab", "rejected": "cd"}, "preference")  # whose answers are compared whole
    rendered = render(load_template(QWEN, nothing), pair)
    assert [one.text[one.boundary :] for one in rendered] == ["ab<|im_end|>", "cd<|im_end|>"]
