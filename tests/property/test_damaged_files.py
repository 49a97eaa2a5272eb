"""Files with bytes changed, lost or put in: each is read, or refused in words that name it. No traceback, and no row without a count."""

import gzip
import json
import tempfile
from functools import cache
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlealign.data.records import read_records
from paddlealign.data.sources import pieces
from paddlealign.errors import UserError

ROWS = [{"prompt": f"q{n}\u2028", "chosen": "好", "rejected": f'r{n}, "s"', "margin": n / 2} for n in range(5)]
NAMES = ("d.jsonl", "array.json", "pretty.json", "literal.json", "d.csv", "d.jsonl.gz", "d.jsonl.zst", "d.parquet", "d.arrow", "file.arrow")
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(min_size=0, max_size=4)), min_size=1, max_size=3)


@cache
def whole(name: str) -> bytes:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    sink, table = pyarrow.BufferOutputStream(), pyarrow.Table.from_pylist(ROWS)
    if name == "d.parquet":
        pyarrow.parquet.write_table(table, sink)
    elif name.endswith(".arrow"):
        with (pyarrow.ipc.new_file if name == "file.arrow" else pyarrow.ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table)
    elif name.endswith(".zst"):
        with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(lines.encode())
    else:
        cells = [[str(value).replace('"', '""') for value in row.values()] for row in ROWS]
        texts = {
            "array.json": json.dumps(ROWS, indent=1),
            "pretty.json": "\n".join(json.dumps(row, indent=1) for row in ROWS),
            "literal.json": "\n".join(map(repr, ROWS)),
            "d.csv": "prompt,chosen,rejected,margin\n" + "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in cells),
        }
        data = texts.get(name, lines).encode()
        return gzip.compress(data) if name.endswith(".gz") else data
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)
@given(changes=CHANGES)
def test_a_damaged_file_is_read_or_refused(name: str, changes: list[tuple[float, int, bytes]]):
    data = whole(name)
    for share, lost, put in changes:
        place = int(share * len(data))
        data = data[:place] + put + data[place + lost :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        try:
            found = list(pieces(path))
            records, report = read_records([path], "preference")
        except UserError as error:
            assert str(path) in str(error) and "Traceback" not in str(error)
        else:
            assert len(found) == report.rows and report.skipped == ()
            assert report.used + sum(report.refused.values()) == report.rows and report.used == len(records)


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_files_are_read(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(whole(name))
    records, report = read_records([tmp_path / name], "preference")
    assert [(it.messages[0].content, it.responses, it.margin) for it in records] == [
        (row["prompt"], (row["chosen"], row["rejected"]), row["margin"]) for row in ROWS
    ]
    assert report.used == 5
