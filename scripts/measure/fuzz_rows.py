"""Damage data files in many ways and read them: python -m scripts.measure.fuzz_rows CASES [SEED]

Prints a table by kind of damage: how many files were read right, how many were refused, and how many of the refused ones are read where
bad rows are skipped. A case that is neither, or that loses a row without a word, ends the script with the case's seed.
tests/property/test_damaged_files.py runs some thousand of the same cases.
"""

import csv
import gzip
import io
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pyarrow.parquet

from paddlealign.data.records import read_rows
from paddlealign.errors import UserError

NAMES = (
    "d.jsonl", "lines.json", "array.json", "pretty.json", "literal.json", "list.json", "d.csv", "d.tsv", "d.jsonl.gz", "d.jsonl.zst",
    "d.parquet", "d.arrow", "file.arrow",
)  # fmt: skip
ROWS = [{"prompt": f"q{n}\u2028", "chosen": "好 it's", "rejected": f'r{n}, "s"', "margin": n / 2} for n in range(9)]
# Files in which each row is on lines of its own, so that damage to one says nothing about the others.
APART = ("d.jsonl", "lines.json", "array.json", "pretty.json", "literal.json")
USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
FORMS: dict[str, list[dict[str, Any]]] = {
    "sft": [
        {"src": ["q", "p"], "tgt": ["a", "b"]},
        {"prompt": "q", "response": "a"},
        {"messages": [USER, ANSWER], "system": "s"},
        {"instruction": "q", "input": "p", "output": "a", "history": [["q", "a"]]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    ],
    "preference": [
        {"prompt": "q", "chosen": ["a", "b"], "rejected": ["c", "b"], "margin": 1},
        {"chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "b"}]},
        {"src": "q", "response": ["a", "b"], "sort": [1, 0]},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "score_A": 4, "score_B": 1, "labels": 1},
        {"question": "q", "answers": [{"text": "a", "pm_score": 1}, {"text": "b", "pm_score": 0}]},
        {"prompt": "q", "completions": ["a", "b", "c"], "scores": [1, 1, 2]},
    ],
    "labelled": [{"prompt": "q", "completion": "a", "label": True}, {"src": "q", "response": ["a"], "sort": [1]}],
    "prompt": [{"src": "q"}, {"prompt": "q", "id": 7}, {"messages": [USER]}],
}
VALUES = (None, "", " ", 0, -1, 0.5, True, [], {}, [None], ["a"], [[]], {"a": 1}, "\ud800", "\0", "<|im_end|></s>", float("nan"), 10**400)

SIGNS = (b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"'")


@dataclass(frozen=True)
class Case:
    """A damaged file. kind: of its rows. kept: the row numbers, from 0, that the damage did not touch, where these must come out."""

    name: str
    data: bytes
    kind: str
    rows: list[dict[str, Any]]
    kept: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a case. read: without a bad row. skipped: bad rows that were skipped; None where the file is refused all the same."""

    read: bool
    skipped: int | None


@cache
def whole(name: str) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """The content of an undamaged file of ``ROWS``, and for files with rows apart from where to where each row lies."""
    sink, table = pyarrow.BufferOutputStream(), pyarrow.Table.from_pylist(ROWS)
    if name == "d.parquet":
        pyarrow.parquet.write_table(table, sink, row_group_size=4)
    elif name.endswith(".arrow"):
        with (pyarrow.ipc.new_file if name == "file.arrow" else pyarrow.ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    if name.endswith((".parquet", ".arrow")):
        return sink.getvalue().to_pybytes(), ()
    if name in ("d.csv", "d.tsv"):
        text = io.StringIO()
        csv.writer(text, delimiter="," if name == "d.csv" else "\t", lineterminator="\n").writerows(
            [list(ROWS[0]), *map(dict.values, ROWS)]
        )
        return text.getvalue().encode(), ()
    write: Callable[[Any], str] = {
        "pretty.json": lambda row: json.dumps(row, indent=1),
        "array.json": lambda row: "  " + json.dumps(row, ensure_ascii=False),
        "literal.json": repr,
        "list.json": repr,
    }.get(name, lambda row: json.dumps(row, ensure_ascii=False))
    start, between, end = {"array.json": ("[\n", ",\n", "\n]"), "list.json": ("[", ",\n", "]")}.get(name, ("", "\n", "\n"))
    data, places = start.encode(), []
    for number, row in enumerate(ROWS):
        place = len(data)
        data += (write(row) + (between if number < len(ROWS) - 1 else end)).encode()
        places.append((place, len(data)))
    if name.endswith(".zst"):
        with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        return sink.getvalue().to_pybytes(), ()
    return (gzip.compress(data, mtime=0), ()) if name.endswith(".gz") else (data, tuple(places))


def _bytes_changed(random: Random, change: Callable[[bytes, int], tuple[int, bytes]]) -> Case:
    """change: from the content and a place to how many bytes there are lost, and what stands in their place."""
    name = random.choice(NAMES)
    data, places = whole(name)
    place = random.randrange(len(data))
    lost, put = change(data, place)
    # Damage to the first row, or to what stands before it, may make the file look like one of another form.
    sound = [number for number, (start, end) in enumerate(places) if end < place or start > place + lost]
    kept = tuple(sound) if name in APART and place > places[0][1] else ()
    return Case(name, data[:place] + put + data[place + lost :], "preference", ROWS, kept)


def _rows_changed(random: Random, change: Callable[[dict[str, Any]], str]) -> Case:
    """change: from a row to the line that takes its place."""
    kind = random.choice(list(FORMS))
    form = random.choice(FORMS[kind])
    rows = [{**form, "id": number} for number in range(4)]
    place = random.randrange(1, 4)
    lines = [change(json.loads(json.dumps(row))) if number == place else json.dumps(row) for number, row in enumerate(rows)]
    data = "\n".join(lines).encode("utf-8", errors="surrogateescape")
    return Case("d.jsonl", data, kind, rows, tuple(number for number in range(4) if number != place))


def _with_value(random: Random, row: dict[str, Any]) -> str:
    """A value somewhere in the row is another one."""
    inner: Any = row
    while True:
        key = random.choice(list(inner)) if isinstance(inner, dict) else random.randrange(len(inner))
        if random.random() < 0.5 and isinstance(inner[key], dict | list) and inner[key]:
            inner = inner[key]
        else:
            inner[key] = random.choice(VALUES)
            return json.dumps(row)


def _without(random: Random, row: dict[str, Any]) -> str:
    del row[random.choice(list(row))]
    return json.dumps(row)


def _in_text(random: Random, row: dict[str, Any], put: str) -> str:
    """Something stands raw inside a text of the row."""
    line = json.dumps(row)
    place = random.choice([place for place, sign in enumerate(line[:-1]) if sign == '"'])
    return line[: place + 1] + put + line[place + 1 :]


def _deep(row: dict[str, Any], levels: int) -> str:
    return json.dumps(row)[:-1] + ', "x": ' + "[" * levels + "]" * levels + "}"


def _other_row(random: Random, row: dict[str, Any]) -> str:
    return json.dumps(random.choice([form for forms in FORMS.values() for form in forms]))


DAMAGES: dict[str, Callable[[Random], Case]] = {
    "a bit turned": lambda it: _bytes_changed(it, lambda data, place: (1, bytes([data[place] ^ (1 << it.randrange(8))]))),
    "bytes lost": lambda it: _bytes_changed(it, lambda data, place: (it.randrange(1, 9), b"")),
    "bytes put in": lambda it: _bytes_changed(it, lambda data, place: (0, it.randbytes(it.randrange(1, 9)))),
    "bytes exchanged": lambda it: _bytes_changed(it, lambda data, place: (4, it.randbytes(4))),
    "a sign of JSON put in": lambda it: _bytes_changed(it, lambda data, place: (0, it.choice(SIGNS))),
    "a line end put in": lambda it: _bytes_changed(it, lambda data, place: (0, it.choice([b"\n", b"\r\n", b"\r"]))),
    "zeros": lambda it: _bytes_changed(it, lambda data, place: (count := it.randrange(1, 99), bytes(count))),
    "cut off": lambda it: _bytes_changed(it, lambda data, place: (len(data), b"")),
    "a part twice": lambda it: _bytes_changed(it, lambda data, place: (0, data[place : place + it.randrange(1, 60)])),
    "a key lost": lambda it: _rows_changed(it, lambda row: _without(it, row)),
    "another value": lambda it: _rows_changed(it, lambda row: _with_value(it, row)),
    "another row": lambda it: _rows_changed(it, lambda row: _other_row(it, row)),
    "no object": lambda it: _rows_changed(it, lambda row: it.choice(["[]", "3", "null", '"x"', "true", "{}", "NaN", "[1, {}]"])),
    "a key twice": lambda it: _rows_changed(it, lambda row: json.dumps(row)[:-1] + f', "{it.choice(list(row))}": 1}}'),
    "a control byte": lambda it: _rows_changed(it, lambda row: _in_text(it, row, chr(it.choice([0, 1, 9, 13, 31])))),
    "no UTF-8": lambda it: _rows_changed(it, lambda row: _in_text(it, row, it.choice(["\udcff", "\udce9", "\udced\udca0\udc80"]))),
    "half a pair": lambda it: _rows_changed(it, lambda row: _in_text(it, row, it.choice(["\\ud800", "\\udfff", "\\ud83d\\ude00"]))),
    "deep": lambda it: _rows_changed(it, lambda row: _deep(row, it.choice([50, 200, 3000]))),
    "a line cut": lambda it: _rows_changed(it, lambda row: (line := json.dumps(row))[: it.randrange(1, len(line))]),
}  # fmt: skip


def make_case(kind: str, seed: int) -> Case:
    """The case of a kind of damage and a seed."""
    return DAMAGES[kind](Random(f"{kind} {seed}"))


def check_case(case: Case, folder: Path) -> Outcome:
    """Read a damaged file with bad rows as errors and with bad rows skipped. Raises AssertionError where a row is lost without a word."""
    path = folder / case.name
    path.write_bytes(case.data)
    read, skipped = False, None
    try:
        _, report = read_rows([path], case.kind)
        read = report.rows == report.used + _left_out(report.refused, report.rows, report.used) and report.skipped == ()
        assert read, f"{report}"
    except UserError as error:
        assert str(path) in str(error) and "Traceback" not in str(error), f"{error}"
    try:
        found, report = read_rows([path], case.kind, on_bad_row="skip")
    except UserError as error:
        assert str(path) in str(error) and not read, f"{error}"
        return Outcome(read, None)
    skipped = len(report.skipped)
    left_out = report.rows - report.used - skipped
    assert left_out == _left_out(report.refused, left_out, 0) and report.used >= len({record.source for _, record in found}), f"{report}"
    assert read == (skipped == 0) and all(it.source.startswith(f"{path}:") and it.reason for it in report.skipped), f"{report}"
    rows = iter([_plain(row) for row, _ in found])
    lost = [number for number in case.kept if _plain(case.rows[number]) not in rows]  # in order: each search goes on where the last ended
    assert not lost, f"rows {lost} did not come out"
    return Outcome(read, skipped)


def _left_out(refused: dict[str, int], rows: int, used: int) -> int:
    """How many rows gave no record, as far as there is a reason for each."""
    return rows - used if rows - used <= sum(refused.values()) else -1


def _plain(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


def main(cases: int, seed: int) -> None:
    """Run so many cases, spread over the kinds of damage, and print the table."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in DAMAGES}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(cases):
            kind = list(DAMAGES)[number % len(DAMAGES)]
            case = make_case(kind, seed + number)
            try:
                outcome = check_case(case, Path(folder))
            except Exception as error:  # noqa: BLE001 - whatever a reader raises is what is looked for
                sys.exit(f'make_case("{kind}", {seed + number}): {type(error).__name__}: {error}\n{case.data!r}')
            found = {"cases": 1, "read": outcome.read, "refused": not outcome.read}
            found |= {"skip": not outcome.read and outcome.skipped is not None, "rows": outcome.skipped or 0}
            counts[kind].update(found)
    print("| damage | files | read right | refused | of these read under skip | rows skipped there |\n|---|---|---|---|---|---|")
    total: Counter[str] = sum(counts.values(), Counter())
    for kind, it in {**counts, "all": total}.items():
        print(f"| {kind} | {it['cases']:,} | {it['read']:,} | {it['refused']:,} | {it['skip']:,} | {it['rows']:,} |")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
