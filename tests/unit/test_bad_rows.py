"""Bad input, each by name: the bytes of a file, and what a user is told. Under skip the rows beside it are used, and all are counted."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from paddlealign.data import row_bytes
from paddlealign.data.records import read_records, read_rows
from paddlealign.data.refusals import RefusedRow, describe_refusals, write_refusals
from paddlealign.data.sources import BadRow, Piece, pieces, row_of
from paddlealign.errors import UserError

GOOD = b'{"src": "q", "tgt": "a"}\n'
PAIR = {"prompt": "q", "chosen": "c", "rejected": "r"}
PRETTY = json.dumps({"src": "q", "tgt": "a"}, indent=1).encode() + b"\n"
ARRAY = json.dumps([{"src": "q", "tgt": f"a{n}"} for n in range(3)], indent=2).encode()
DEEP = b"[" * 200 + b"]" * 200


def line(**row: object) -> bytes:
    return json.dumps(row).encode() + b"\n"


# name, bytes, where ("line" or "line:column"), words, and how many rows are used and skipped under skip
LINES = [
    ("no comma", GOOD + b'{"src": "q" "tgt": "a"}\n' + GOOD, "2:13", "Expecting ',' delimiter, found '\"tgt\": \"a\"}'", (2, 1)),
    ("no quote", GOOD + b'{"src": "q, "tgt": "a"}\n' + GOOD, "2:14", "not valid JSON", (2, 1)),
    ("no brace", GOOD + b'{"src": "q", "tgt": "a"\n' + GOOD, "2:24", "found its end", (2, 1)),
    ("the first row", b'{"src": "q" "tgt": "a"}\n' + GOOD, "1:13", "not valid JSON", (1, 1)),
    ("junk", GOOD + b"junk\n" + GOOD, "2:1", "not valid JSON (Expecting value, found 'junk')", (2, 1)),
    ("two texts side by side", GOOD + b'{"src": "q", "tgt": "a" "b"}\n', "2:25", "not valid JSON", (1, 1)),
    ("two texts in single quotes", GOOD + b"{'src': 'q', 'tgt': 'a' 'b'}\n", "2:2", "not valid JSON", (1, 1)),
    ("another encoding", GOOD + b'{"src": "caf\xe9", "tgt": "a"}\n' + GOOD, "2:13", "not UTF-8 (byte 0xe9). Save", (2, 1)),
    ("a surrogate in bytes", GOOD + b'{"src": "\xed\xa0\x80", "tgt": "a"}\n', "2:10", "not UTF-8", (1, 1)),
    ("half a pair", GOOD + b'{"src": "\\ud800", "tgt": "a"}\n', "2", "src holds half a surrogate pair (\\ud800)", (1, 1)),
    ("a NUL", GOOD + b'{"src": "q\x00", "tgt": "a"}\n' + GOOD, "2:11", "write it as \\u0000", (2, 1)),
    ("a tab", GOOD + b'{"src": "q\tr", "tgt": "a"}\n', "2:11", "write it as \\u0009", (1, 1)),
    ("only NULs", GOOD + b"\0\0\0\0\n" + GOOD, "2:1", "not valid JSON", (2, 1)),
    ("cut off", GOOD + b'{"src": "q", "tg', "2:17", "the file ends in the middle of this row", (1, 1)),
    ("cut off in a word", GOOD + b'{"src": "q", "x": tru', "2:22", "the file ends in the middle of this row", (1, 1)),
    ("cut off in a character", GOOD + '{"src": "好'.encode()[:-1], "2:12", "the file ends in the middle of this row", (1, 1)),
    ("deep", GOOD + b'{"src": "q", "tgt": "a", "x": ' + DEEP + b"}\n" + GOOD, "2", "nested too deeply", (2, 1)),
    ("very deep", GOOD + b'{"src": "q", "tgt": "a", "x": ' + DEEP * 99 + b"}\n" + GOOD, "2:431", "not valid JSON", (2, 1)),
    ("deep and open", GOOD + b'{"src": "q", "tgt": ' + b"[" * 100_000 + b"\n" + GOOD, "2", "nested too deeply", (2, 1)),
    ("a key twice", GOOD + b'{"src": "q", "tgt": "a", "src": "b"}\n', "2", 'the key "src" stands twice', (1, 1)),
    ("a key twice in single quotes", GOOD + b"{'src': 'q', 'tgt': 'a', 'src': 'b'}\n", "2", 'the key "src" stands twice', (1, 1)),
    ("a huge number", GOOD + b'{"src": "q", "tgt": "a", "n": ' + b"9" * 5000 + b"}\n", "2", "more than 4,300 digits", (1, 1)),
    ("NaN", GOOD + b'{"src": "q", "tgt": NaN}\n', "2", "tgt is number nan; it must be a text", (1, 1)),
    ("a list", GOOD + b"[1, 2]\n" + GOOD, "2", "found a list, a row is a JSON object", (2, 1)),
    ("a number", GOOD + b"3\n" + GOOD, "2", "found a number, a row is a JSON object", (2, 1)),
    ("null", GOOD + b"null\n", "2", "found a null", (1, 1)),
    ("missing", GOOD + line(src="q"), "2", "no 'tgt'; found 'src'", (1, 1)),
    ("null field", GOOD + line(src=None, tgt="a"), "2", "src is null; it must be a text", (1, 1)),
    ("empty field", GOOD + line(src="q", tgt=" \n"), "2", "tgt is empty", (1, 1)),
    ("a number for a text", GOOD + line(src=3, tgt="a"), "2", "src is number 3; it must be a text", (1, 1)),
    ("an object for a text", GOOD + line(src={"a": 1}, tgt="a"), "2", "src is object {'a': 1}", (1, 1)),
    ("a boolean for a text", GOOD + line(src="q", tgt=True), "2", "tgt is boolean True", (1, 1)),
    ("a number in a list", GOOD + line(src=["q"], tgt=[1]), "2", "tgt[0] is number 1", (1, 1)),
    ("messages that are none", GOOD + line(messages="q"), "2", "messages is text 'q'", (1, 1)),
    ("a message that is none", GOOD + line(messages=[3]), "2", "messages[0] is number 3", (1, 1)),
    ("a comma behind", GOOD + line(src="q", tgt="a")[:-1] + b",\n" + GOOD, "2:25", "Extra data, found ','", (2, 1)),
    ("a long line", GOOD + line(src="q" * 10_000_000, tgt=""), "2", "tgt is empty", (1, 1)),
    ("a broken long line", GOOD + line(src="q" * 10_000_000, tgt="a")[:-3] + b"\n" + GOOD, "2:10000020", "Unterminated string", (2, 1)),
]  # fmt: skip
ARRAYS = [
    ("no comma", ARRAY.replace(b'"q",', b'"q"', 2).replace(b'"q"\n', b'"q",\n', 1), "8:5", "Expecting ',' delimiter", (2, 1)),
    ("no comma between", ARRAY.replace(b"},", b"}", 1), "6:3", "Expecting ',' or ']' after a row", (3, 1)),
    ("not UTF-8", ARRAY.replace(b"a1", b"a\xff"), "8:14", "not UTF-8 (byte 0xff)", (2, 1)),
    ("a bad byte between", ARRAY.replace(b"},", b"}\xff,", 1), "5:4", "Expecting ',' or ']'", (3, 1)),
    ("no row", ARRAY.replace(b'{\n    "src": "q",\n    "tgt": "a1"\n  }', b"17"), "6", "found a number", (2, 1)),
    ("a bracket between", ARRAY.replace(b"},", b"},\n[", 1), "6:1", "found a list", (3, 1)),
    ("cut off", ARRAY[:-9], "12:12", "the file ends in the middle of this row", (2, 1)),
    ("no end", ARRAY[:-1], "14:1", "the file ends before the array does", (3, 1)),
    ("text behind", ARRAY + b" x", "14:3", "text after the end of the JSON array", (3, 1)),
    ("an end between", ARRAY.replace(b"},", b"}],", 1), "5:5", "text after the end of the JSON array", (3, 1)),
    ("two arrays", ARRAY + b"\n" + ARRAY, "15:1", "text after the end of the JSON array", (6, 1)),
    ("deep", ARRAY.replace(b'"a1"', b"[" * 5000), "6", "nested too deeply", (2, 1)),
    ("one line", b'[{"src": "q", "tgt": "a"}, {"src": "q" "tgt": "a"},\n{"src": "q", "tgt": "a"}]', "1:40", "Where the next row", (1, 1)),
    ("pretty", PRETTY + PRETTY.replace(b",", b"") + PRETTY, "7:2", "Expecting ',' delimiter", (2, 1)),
    ("pretty, cut off", PRETTY + PRETTY[:-5], "7:9", "the file ends in the middle of this row", (1, 1)),
    ("pretty, then lines", PRETTY + b"junk\n" + GOOD, "5:1", "not valid JSON", (2, 1)),
    ("python", b"[{'src': 'q', 'tgt': 'a'},\n{'src': 'q'}]", "2", "no 'tgt'", (1, 1)),
]  # fmt: skip
CSV = [
    ("cells", b"src,tgt\nq,a\nq\nq,b\n", "3", "1 cells; the first line names 2 columns", (2, 1)),
    ("not UTF-8", b"src,tgt\nq,a\nq,caf\xe9\nq,b\n", "3:6", "not UTF-8 (byte 0xe9)", (2, 1)),
    ("a quote that nothing closes", b'src,tgt\nq,a\n"q,a\nq,b\n', "3", "not valid csv (unexpected end of data)", (2, 1)),
    ("text behind a quote", b'src,tgt\n"q"x,a\nq,b\n', "2", "not valid csv", (1, 1)),
    ("empty cell", b"src,tgt\nq,\nq,b\n", "2", "tgt is empty", (1, 1)),
]  # fmt: skip
CASES = [(f"{form}: {it[0]}", name, *it[1:]) for form, name, cases in (
    ("lines", "d.jsonl", LINES), ("objects", "d.json", ARRAYS), ("csv", "d.csv", CSV)) for it in cases]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "where", "words", "counts"), [it[1:] for it in CASES], ids=[it[0] for it in CASES])
def test_a_bad_row_is_told_by_its_place_and_can_be_skipped(tmp_path, name, data, where, words, counts):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_records([path], "sft")
    text = str(caught.value)
    assert f"\n  {path}:{where}: " in text and words in text and len(text) < 1000
    assert "set on_bad_row to skip" in text and "Allowed rows: " in text
    records, report = read_records([path], "sft", on_bad_row="skip")
    assert (report.used, len(report.skipped)) == counts and report.rows == sum(counts)
    assert len(records) == report.used and report.skipped[0].source == f"{path}:{where}"
    assert words in report.skipped[0].reason


READ = {
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "one in the middle": GOOD + b"\xef\xbb\xbf" + GOOD,
    "an escaped NUL": GOOD + b'{"src": "q\\u0000", "tgt": "a"}\n',
    "a large number": GOOD + b'{"src": "q", "tgt": "a", "n": ' + b"9" * 400 + b"}\n",
    "infinity in another key": GOOD + b'{"src": "q", "tgt": "a", "n": -Infinity}\n',
    "half a pair in another key": GOOD + b'{"src": "q", "tgt": "a", "\\ud800": 1}\n',
    "no line feed at the end": GOOD.strip(),
    "carriage returns": GOOD.replace(b"\n", b"\r\n") * 2,
    "empty lines": b"\n\n" + GOOD + b" \n" + GOOD,
    "100 levels": GOOD + b'{"src": "q", "tgt": "a", "x": ' + b"[" * 99 + b"]" * 99 + b"}\n",
    "200 objects side by side": GOOD + line(src="q", tgt="a", x=[{}] * 200),
    "a line of 10 MB": line(src="q" * 10_000_000, tgt="a"),
    "objects on one line": GOOD.strip() + GOOD,
    "an array on one line": b"[" + GOOD.strip() + b"," + GOOD.strip() + b"]",
    "a text that holds a special token": line(src="</s> <|im_end|>", tgt="<s>"),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_unusual_and_right_is_read(tmp_path, name):
    path = tmp_path / "d.json"
    path.write_bytes(READ[name])
    records, report = read_records([path], "sft")
    assert report.rows == report.used == len(records) == READ[name].count(b'"src"') and report.skipped == ()


def test_files_that_are_none_are_refused_whole(tmp_path, monkeypatch):
    told = {
        "empty": (b"", "the file is empty"),
        "spaces": (b" \n\n", "the file is empty"),
        "mark": (b"\xef\xbb\xbf", "the file is empty"),
        "wide": ('{"src": "q"}'.encode("utf-16"), "the file is UTF-16. Save it as UTF-8"),
        "wide without a mark": ('{"src": "q"}'.encode("utf-16-le"), "the file is UTF-16"),
        "packed": (gzip.compress(GOOD), "packed by gzip; give it the ending .gz"),
        "zip": (b"PK\x03\x04...", "a zip archive"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "page": (b"<!DOCTYPE html>\n<html>", "HTML, not rows"),
    }
    for name, (data, words) in told.items():
        path = tmp_path / f"{name}.json"
        path.write_bytes(data)
        for on_bad_row in ("error", "skip"):
            with pytest.raises(UserError) as caught:
                read_records([path], "sft", on_bad_row=on_bad_row)
            assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)
    os.mkfifo(tmp_path / "pipe.json")
    others = {tmp_path: "this is a folder", tmp_path / "pipe.json": "a pipe or a device", Path("/dev/null"): "a pipe or a device"}
    for path, words in {**others, tmp_path / "none.json": "no such data file"}.items():
        with pytest.raises(UserError, match=words):
            list(pieces(path))
    (tmp_path / "locked.json").write_bytes(GOOD)

    def locked(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    for name, owner in {"open": row_bytes.Path, "stat": row_bytes.Path}.items():
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, locked)
            with pytest.raises(UserError, match=r"locked\.json: cannot be read: Permission denied"):
                list(pieces(tmp_path / "locked.json"))


def test_rows_before_the_end_of_a_cut_archive_count(tmp_path):
    """What cannot be unpacked any more is one row, and the row in which the archive ends belongs to it."""
    path = tmp_path / "d.jsonl.gz"
    rows = b"".join(line(src=f"q{n}", tgt=os.urandom(20).hex()) for n in range(2000))
    whole = gzip.compress(rows)
    for cut, data in {"short": whole[: len(whole) // 2], "no end mark": whole[:-8], "text behind": whole + b"xx"}.items():
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"d\.jsonl\.gz:\d+: cannot be read on from here: "):
            read_records([path], "sft")
        records, report = read_records([path], "sft", on_bad_row="skip")
        count = len(records)
        assert count == 2000 if cut != "short" else 900 < count < 1100
        assert [it.messages[0].content for it in records] == [f"q{n}" for n in range(count)]
        assert (report.rows, len(report.skipped)) == (count + 1, 1) and report.skipped[0].source == f"{path}:{count + 1}"


def test_only_the_first_problems_are_listed_and_all_are_counted(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(GOOD + b"{'\n" * 1200 + line(src="q", tgt=""))
    with pytest.raises(UserError, match=r"1,201 data rows are wrong \(of 1,202\)") as caught:
        read_records([path], "sft")
    assert "... and 1,196 more" in str(caught.value) and str(caught.value).count(f"{path}:") == 5
    _, report = read_records([path], "sft", on_bad_row="skip")
    lines = describe_refusals("train", report.skipped)
    assert len(lines) == 2 and lines[0].startswith("train: skipped 1,200 bad: not valid JSON")
    assert lines[1] == f"train: skipped 1 bad: tgt is empty. (first: {path}:1202)"


def test_refused_rows_are_kept_as_they_stood(tmp_path):
    path = tmp_path / "d.jsonl"
    broken = ['{"src": "caf\udce9"}', '{"src": "\\ud800", "tgt": "a"}', '{"src": "好" 3}', '{"src": "' + "q" * 2_000_000 + '"}']
    path.write_bytes(GOOD + "\n".join(broken).encode(errors="surrogateescape"))
    _, report = read_records([path], "sft", on_bad_row="skip")
    write_refusals(tmp_path / "out" / "refused.jsonl", report.skipped)
    kept = [json.loads(text) for text in (tmp_path / "out" / "refused.jsonl").read_text("utf-8").splitlines()]
    assert [it["row"] for it in kept] == [*broken[:3], broken[3][:1_000_000]]
    assert [it["source"] for it in kept] == [f"{path}:2:13", f"{path}:3", f"{path}:4:13", f"{path}:5"]
    assert all(set(it) == {"source", "reason", "row"} for it in kept)
    write_refusals(tmp_path / "out" / "refused.jsonl", [])
    assert not (tmp_path / "out" / "refused.jsonl").exists()


def test_many_reasons_are_cut_short():
    refused = [RefusedRow(f"f:{n}", f"{'abcdefgh'[n % 8] * 5} is number {n}.", "") for n in range(80)]
    lines = describe_refusals("dev", refused)
    assert len(lines) == 6 and lines[-1] == "dev: skipped 30 bad for 3 other reasons"


def test_without_a_usable_row_skip_says_what_was_bad(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"{\n" * 3)
    with pytest.raises(UserError, match=r"no usable row.*bad rows, which were skipped, first at"):
        read_records([path], "sft", on_bad_row="skip")


def test_rows_that_cannot_teach_are_no_bad_rows(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(line(**PAIR) + line(**{**PAIR, "rejected": "c"}) + line(prompt="q", chosen="", rejected="r"))
    _, report = read_rows([path], "preference", on_bad_row="skip")
    assert (report.rows, report.used, report.refused, len(report.skipped)) == (3, 1, {"chosen equals rejected": 1}, 1)


def test_a_piece_is_decoded_where_it_is_asked_for(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(GOOD + b"{\n" + GOOD)
    found = list(pieces(path))
    assert found == [Piece(1, GOOD), Piece(2, b"{\n"), Piece(3, GOOD)]
    assert row_of(found[0]) == ({"src": "q", "tgt": "a"}, False) and row_of(found[1]).line == 2


def large_file(path: Path, rows: int, text: str) -> Path:
    """60 MB of rows, in the form that the name says."""
    one = json.dumps({"src": "q", "tgt": text}).encode()
    between, ends = {"array.json": (b",\n", (b"[", b"]")), "d.csv": (b"\n", (b"src,tgt\n", b""))}.get(path.name, (b"\n", (b"", b"\n")))
    one = {"d.csv": b"q," + text.encode(), "pretty.json": one.replace(b",", b",\n")}.get(path.name, one)
    if path.suffix in (".parquet", ".arrow"):
        batch = pyarrow.record_batch({"src": ["q"] * 100, "tgt": [text] * 100})
        make = pyarrow.parquet.ParquetWriter if path.suffix == ".parquet" else pyarrow.ipc.new_stream
        with make(str(path), batch.schema) as writer:
            for _ in range(rows // 100):
                writer.write_batch(batch)
        return path
    with gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb") as file:
        file.write(ends[0])
        for number in range(rows):
            file.write(one if number == rows - 1 else one + between)
        file.write(ends[1])
    return path


@pytest.mark.parametrize("name", ["array.json", "d.jsonl", "pretty.json", "d.csv", "d.jsonl.gz", "d.parquet", "d.arrow"])
def test_a_large_file_is_read_in_little_memory(tmp_path, name):
    """60 MB; what Python holds at once stays below 15 MB, however long the file is."""
    path = large_file(tmp_path / name, 3000, "a" * 20_000)
    assert path.suffix in (".gz", ".parquet") or path.stat().st_size > 60_000_000
    assert next(pieces(path)) is not None  # the first import of pyarrow is not the file's
    tracemalloc.start()
    try:
        count = sum(not isinstance(row_of(piece), BadRow) for piece in pieces(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 3000 and peak < 15_000_000
