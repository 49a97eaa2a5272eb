"""Tables and packed files: the rows that JSON lines of the same content give, and what a user is told about files that are none."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from paddlealign.data.records import RowReading, read_records, read_rows
from paddlealign.errors import UserError

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CALL, OTHER_CALL = (
    {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": arguments}}]}
    for arguments in ({"x": 1}, {"y": "z"})
)
ROWS = {
    "sft": [
        {"messages": [USER, CALL, {"role": "tool", "content": "1"}, ANSWER], "source": "a"},
        {"messages": [USER, OTHER_CALL, {"role": "tool", "content": "2"}, ANSWER], "source": None},
    ],
    "preference": [
        {"prompt": "q\u2028x", "chosen": "c", "rejected": "r", "margin": 0.5},
        {"prompt": "p", "chosen": "c", "rejected": "c", "margin": None},
    ],
    "labelled": [{"prompt": "q", "completion": "a", "label": True}, {"prompt": "q", "completion": "b", "label": False}],
}


def save(path: Path, rows: list) -> Path:
    table = pyarrow.Table.from_pylist(rows)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=1)
    elif path.name.startswith("file"):
        with pyarrow.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=1)
    elif path.suffix == ".arrow":
        with pyarrow.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table, max_chunksize=1)
    elif path.suffix == ".zst":
        with pyarrow.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(lines)
    else:
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("name", ["d.parquet", "file.arrow", "d.arrow", "d.jsonl.zst", "d.jsonl.gz"])
def test_a_table_gives_the_records_of_its_json_lines(tmp_path, kind, name):
    expected, told = read_records([save(tmp_path / "d.jsonl", ROWS[kind])], kind)
    path = save(tmp_path / name, ROWS[kind])
    records, report = read_records([path], kind)
    assert (report.rows, report.used, report.refused, report.forms) == (told.rows, told.used, told.refused, told.forms)
    assert [record.source for record in records] == [record.source.replace(str(tmp_path / "d.jsonl"), str(path)) for record in expected]
    assert [(it.messages, it.responses, it.margin, it.desirable) for it in records] == [
        (it.messages, it.responses, it.margin, it.desirable) for it in expected
    ]


def test_values_that_json_does_not_have_become_texts(tmp_path):
    pyarrow.parquet.write_table(
        pyarrow.table({"src": ["q"], "tgt": ["a"], "day": pyarrow.array([0], pyarrow.date32())}), tmp_path / "d.parquet"
    )
    [(row, _)], _ = read_rows([tmp_path / "d.parquet"], "sft")
    assert json.loads(json.dumps(row)) == {"src": "q", "tgt": "a", "day": "1970-01-01"}


def test_csv(tmp_path):
    """Cells with commas, quotes and line breaks, numbers as texts, and lists as JSON or as Python writes them."""
    path = tmp_path / "d.csv"
    path.write_bytes(b'\xef\xbb\xbfprompt,chosen,rejected,margin\r\n"q, ""r""","c\nd",r,0.5\r\n\r\n007,c,[1],\r\n')
    records, _ = read_records([path], "preference")
    assert [(it.messages[0].content, it.responses, it.margin) for it in records] == [
        ('q, "r"', ("c\nd", "r"), 0.5),
        ("007", ("c", "[1]"), 0.0),
    ]
    assert [it.source for it in records] == [f"{path}:2", f"{path}:5"]
    tabs = tmp_path / "d.tsv"
    tabs.write_text("talk\tlabel\n" + json.dumps([USER, ANSWER]).replace('"', "'") + "\tx\n" + repr([USER, ANSWER]) + "\tx\n")
    records, _ = read_records([tabs], "sft", RowReading(columns={"messages": "talk"}))
    assert [it.responses for it in records] == [("a",), ("a",)]
    tabs.write_text("prompt\tcompletion\tlabel\nq\ta\tTrue\nq\tb\tfalse\n")
    assert [it.desirable for it in read_records([tabs], "labelled")[0]] == [True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("src,tgt\nq,a\nq\n", "d.csv:3: 1 cells; the first line names 2 columns"),
        ("src,tgt\nq,a,b\n", "d.csv:2: 3 cells; the first line names 2 columns"),
        ("src,src\nq,a\n", 'd.csv:1: two columns are called "src"'),
        ('src,tgt\nq,a\n"q,a\n', "d.csv:3: not valid csv (unexpected end of data)"),
        ('src,tgt\nq,"a"b\n', "d.csv:2: not valid csv"),
        ("src,tgt\nq,\n", "d.csv:2: tgt is empty"),
        ("src,tgt\n", "no usable row (there are none)"),
        ("", "the file is empty"),
    ],
)
def test_csv_that_is_none_is_named_by_line(tmp_path, text, said):
    path = tmp_path / "d.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_records([path], "sft")
    assert said in str(caught.value)


def test_tables_that_cannot_be_read(tmp_path):
    for name in ("d.parquet", "file.arrow", "d.arrow", "d.jsonl.gz", "d.jsonl.zst"):
        path = save(tmp_path / name, ROWS["sft"] * 200)
        whole = path.read_bytes()
        for content in (b"", b"no such file", whole[: len(whole) // 2], whole[:-9]):
            path.write_bytes(content)
            with pytest.raises(UserError, match=rf"{name}(:\d+)?: (cannot be read|the file is empty)"):
                read_records([path], "sft")


def test_bad_rows_of_a_table_are_named_by_their_number(tmp_path):
    path = tmp_path / "d.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"src": ["q", "q", None], "tgt": ["a", "", "a"]}), path)
    with pytest.raises(UserError) as caught:
        read_records([path], "sft")
    assert f"{path}:2: tgt is empty" in str(caught.value) and f"{path}:3: src is null" in str(caught.value)


def test_an_arrow_file_whose_texts_lie_outside_of_it_is_refused(tmp_path):
    """pyarrow itself would read there and end the process."""
    path = save(tmp_path / "d.arrow", [{"src": "q" * 777, "tgt": "a"}])
    before, after = ((0).to_bytes(4, "little") + size.to_bytes(4, "little") for size in (777, 1 << 30))
    head, offsets, rest = path.read_bytes().rpartition(before)  # the first place is in the file's own description
    assert offsets
    path.write_bytes(head + after + rest)
    with pytest.raises(UserError, match=r"d\.arrow:1: cannot be read: .*out of bounds"):
        read_records([path], "sft")
