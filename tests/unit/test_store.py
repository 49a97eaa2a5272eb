"""Rows in tokens on disk: the same bytes however they were built, found again, and never loaded where they are damaged."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddlealign.data import build
from paddlealign.data.build import Building, Opened, chunks_of, fingerprint, open_or_build, records_behind, remove_others, trained_on
from paddlealign.data.chunk import Encoder, EncodingSettings
from paddlealign.data.chunk_counts import tell
from paddlealign.data.encoding import Limits, encode_all, examples_hash
from paddlealign.data.example import scored_as
from paddlealign.data.examples import Examples
from paddlealign.data.records import RowReading, read_records
from paddlealign.data.shares import place
from paddlealign.data.sources import data_hash
from paddlealign.data.store import FILES, JOURNAL, SUMMARY, open_store
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.data.workers import Task, in_order
from paddlealign.errors import UserError
from tests.small_runs import ROOT

SETTINGS = EncodingSettings("preference", RowReading(), Limits(40), None, None, "auto", "error")
TOKENIZER = Tokenizer.load(ROOT / "data" / "base_model")
# What a process of its own does in these tests; argv: the file of rows, the cache.
OWN_PROCESS = """
import os, signal, sys
from pathlib import Path
from paddlealign.data import build
from tests.unit.test_store import encoder_of, opened
"""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "CHUNK_ROWS", 8)


def encoder_of(*paths: Path, **changes: Any) -> Encoder:
    return Encoder(replace(SETTINGS, **changes), TOKENIZER, load_template(TOKENIZER, "auto"), paths)


def opened(encoder: Encoder, cache: Path, workers: int = 1, say: Any = lambda line: None) -> Opened:
    return open_or_build("train", encoder, data_hash(encoder.paths), Building(cache, workers, False, say))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_pairs(path: Path, count: int, first: int = 0) -> Path:
    """Pairs of many lengths: some too long, some the same in tokens, some that come twice."""
    rows = []
    for number in range(first, first + count):
        row = {"prompt": f"question {number % 50}", "chosen": "good " * (number % 9 + 1), "rejected": "bad", "margin": number % 3}
        rows.append(
            {**row, "chosen": "so " * 60} if number % 10 == 3 else {**row, "rejected": row["chosen"] + " "} if number % 10 == 7 else row
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs.jsonl", 75)


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path, pairs: Path) -> None:
    encoder = encoder_of(pairs, write_pairs(tmp_path / "more.jsonl", 21, 75))
    stores = [content(opened(encoder, tmp_path / str(workers), workers).folder) for workers in (1, 2, 4)]
    assert stores[0] == stores[1] == stores[2]
    assert len(stores[0][JOURNAL].splitlines()) == 10 + 3  # a chunk holds rows of one file


@pytest.mark.parametrize("kind", ["sft", "preference", "labelled"])
@pytest.mark.parametrize("share", [None, (0.25, 0.75)])
def test_a_store_holds_what_encoding_in_memory_gives(tmp_path: Path, pairs: Path, kind: str, share: tuple[float, float] | None) -> None:
    talk = [{"role": role, "content": f"{role} {turn}"} for turn in range(2) for role in ("user", "assistant")]
    turns = "all" if kind == "sft" else None
    if kind == "sft":
        rows = [
            {"messages": [*talk, {"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a " * n}]} for n in range(1, 40)
        ]
        pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    encoder = encoder_of(pairs, kind=kind, share=share, score_turns=turns, limits=Limits(40, 30, "truncate_response"))
    records, read = read_records([pairs], kind)
    records = records if turns is None else [scored_as(it, turns) for it in records]
    within = [it for it in records if share is None or share[0] <= place(it) < share[1]]
    expected = encode_all(within, TOKENIZER, encoder.template, encoder.settings.limits)
    found = opened(encoder, tmp_path / "c", 2)
    store, told = found.store, tell(found.store.counts, encoder.paths)
    assert examples_hash(store.examples) == examples_hash(list(expected.examples)) and len(store.examples) == len(expected.examples) > 5
    assert store.kept.tolist() == expected.kept.tolist() and store.examples.margins.tolist() == expected.examples.margins.tolist()
    assert (told.read, told.encoding, told.other_shares) == (read, expected.report, len(records) - len(within))
    assert store.highest_id == max(int(it.max()) for it in (store.examples.tokens,))
    assert list(records_behind(encoder, store)) == [within[index] for index in expected.kept]
    assert store.tokens_hash == examples_hash(trained_on(encoder, store))
    lengths = [example.length for example in expected.examples]
    longest = [len(it.prompt_ids) + max(len(answer.token_ids) for answer in it.responses) for it in expected.examples]
    assert store.examples.lengths.tolist() == lengths and store.examples.text_lengths.tolist() == longest


def test_a_killed_build_goes_on_to_the_same_bytes(tmp_path: Path, pairs: Path) -> None:
    """Killed twice between what a chunk holds and its line in the journal, each time with two workers, which must end too."""
    encoder, cache = encoder_of(pairs), tmp_path / "cache"
    whole = content(opened(encoder, tmp_path / "whole").folder)
    script = f"""{OWN_PROCESS}
build.CHUNK_ROWS = 8
from paddlealign.data.store import StoreWriter
add, left = StoreWriter.add, [int(sys.argv[3])]

class Dies:
    # a journal that gets a part of a line, and no more
    def __init__(self, journal):
        self.journal = journal
    def write(self, line):
        self.journal.write(line[:20])
        self.journal.flush()
        os.kill(os.getpid(), signal.SIGKILL)

def add_or_die(self, chunk):
    left[0] -= 1
    if not left[0]:
        self._journal = Dies(self._journal)
    add(self, chunk)

StoreWriter.add = add_or_die
opened(encoder_of(Path(sys.argv[1])), Path(sys.argv[2]), 2)
"""
    for chunks in ("3", "4"):
        done = subprocess.run([sys.executable, "-c", script, str(pairs), str(cache), chunks], cwd=ROOT, timeout=120, check=False)
        assert done.returncode == -signal.SIGKILL
    [folder] = cache.iterdir()
    assert not (folder / SUMMARY).exists() and len((folder / JOURNAL).read_bytes().splitlines()) == 6  # 2 and 3 whole ones, and a piece
    said: list[str] = []
    assert content(opened(encoder, cache, 2, said.append).folder) == whole
    assert said == ["train: 40 rows were encoded before; going on from there"]


def test_whatever_is_cut_off_or_changed_in_a_half_store_is_made_again(tmp_path: Path, pairs: Path) -> None:
    encoder = encoder_of(pairs)
    folder = opened(encoder, tmp_path / "c").folder
    whole = content(folder)
    for name in (*FILES[:4], JOURNAL):
        for change in (lambda it: it[: len(it) // 2 + 1], lambda it: b"", lambda it: it + b"more", flipped):
            (folder / SUMMARY).unlink()
            (folder / name).write_bytes(change(whole[name]))
            assert content(opened(encoder, tmp_path / "c").folder) == whole, name
    (folder / SUMMARY).unlink()
    (folder / FILES[0]).unlink()
    assert content(opened(encoder, tmp_path / "c").folder) == whole


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_a_whole_store_is_used_again_and_a_damaged_one_is_not(tmp_path: Path, pairs: Path) -> None:
    encoder, cache = encoder_of(pairs), tmp_path / "c"
    first = opened(encoder, cache)
    whole, mapped = content(first.folder), first.store.examples
    assert not first.reused
    for name in (*FILES[:4], JOURNAL, SUMMARY):
        for change in (flipped, lambda it: it[:-1], lambda it: it + b"\n{}", lambda it: b""):
            said: list[str] = []
            assert opened(encoder, cache, 1, said.append).reused and not said
            (first.folder / name).unlink()  # as a rebuild does it: who has the store mapped may read on
            (first.folder / name).write_bytes(change(whole[name]))
            again = opened(encoder, cache, 1, said.append)
            if name == SUMMARY and again.reused:  # a space more in it says the same
                continue
            assert not again.reused and len(said) == 1 and "are damaged" in said[0] and "encoded anew" in said[0], (name, said)
            assert content(first.folder) == whole
    assert examples_hash(mapped) == first.store.tokens_hash


def changed(value: Any) -> Iterator[Any]:
    """The value with each of its parts changed, one at a time."""
    if is_dataclass(value):
        for item in fields(value):
            for other in changed(getattr(value, item.name)):
                yield replace(value, **{item.name: other})  # type: ignore[type-var]
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, str):
        yield value + "x"
    elif isinstance(value, dict):
        yield {**value, "prompt": "question"}
    elif value is None:
        yield from (0.5, "text")
    else:
        raise AssertionError(f"say how a {type(value)} changes")


def test_every_setting_is_in_the_name(tmp_path: Path, pairs: Path) -> None:
    """A field that is added to the settings is tried here by itself."""
    encoder = encoder_of(pairs)
    others = [replace(encoder, settings=settings) for settings in changed(SETTINGS)]
    others += [replace(encoder, tokenizer=replace(TOKENIZER, fingerprint="other"))]
    others += [replace(encoder, template=replace(encoder.template, fingerprint="other"))]
    others += [replace(encoder, paths=(pairs.with_suffix(".csv"),)), replace(encoder, paths=(pairs, pairs))]
    names = [fingerprint(it, "content") for it in (encoder, *others)] + [fingerprint(encoder, "other content")]
    assert len(set(names)) == len(names) > 15
    moved = replace(encoder, paths=(tmp_path / "elsewhere.jsonl",))
    assert fingerprint(moved, "content") == names[0]


def test_two_that_ask_at_once_build_once(tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, said = encoder_of(pairs), list[str]()
    in_work, go_on, builds, found = threading.Event(), threading.Event(), [], []
    real = build._build

    def slow(*given: Any) -> None:
        builds.append(given)
        in_work.set()
        assert go_on.wait(60)
        real(*given)

    monkeypatch.setattr(build, "_build", slow)

    def say(line: str) -> None:
        said.append(line)
        go_on.set()  # the second waits for the first, which may now go on

    both = [threading.Thread(target=lambda: found.append(opened(encoder, tmp_path / "c", 1, say))) for _ in range(2)]
    both[0].start()
    assert in_work.wait(60)
    both[1].start()
    for thread in both:
        thread.join(60)
    assert len(builds) == 1 and said == ["train: another process encodes the same rows; waiting for it"]
    assert sorted(it.reused for it in found) == [False, True] and len({it.store.tokens_hash for it in found}) == 1


def test_stores_that_nobody_needs_go_and_others_stay(tmp_path: Path, pairs: Path) -> None:
    cache = tmp_path / "c"
    old, kept = (opened(encoder_of(pairs, limits=Limits(size)), cache) for size in (30, 40))
    (cache / "of the user").mkdir()
    mapped = old.store.examples
    remove_others(cache, [kept.folder])
    assert sorted(path.name for path in cache.iterdir()) == sorted([kept.folder.name, "of the user"])
    assert examples_hash(mapped) == old.store.tokens_hash  # who has it mapped may read on


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_that_stop_the_run_are_told_alike_and_leave_nothing(tmp_path: Path, pairs: Path, workers: int) -> None:
    """A bad row behind one that is too long: all bad rows are counted first, whoever reads them."""
    lines = pairs.read_text().splitlines()
    cut = encoder_of(pairs, limits=Limits(40, truncation="error"))
    with pytest.raises(UserError, match=rf"^{pairs}:4: the prompt has \d+ tokens .* Raise the limit"):
        opened(cut, tmp_path / "c", workers)
    lines[30], lines[60], lines[70] = '{"prompt": 1', "[]", '{"prompt": "a"}'
    pairs.write_text("\n".join(lines) + "\n")
    with pytest.raises(
        UserError, match=rf"^3 data rows are wrong \(of 75\):\n  {pairs}:31:13: not valid JSON.*\n  {pairs}:61: .*\n  {pairs}:71: "
    ):
        opened(cut, tmp_path / "c", workers)
    assert not any((tmp_path / "c").iterdir())
    skipped = opened(encoder_of(pairs, on_bad_row="skip"), tmp_path / "c", workers)
    refused = [json.loads(line) for line in (skipped.folder / "refused.jsonl").read_text().splitlines()]
    assert [(row["line"], row["column"], row["text"]) for row in refused] == [
        (31, 13, '{"prompt": 1'),
        (61, None, "[]"),
        (71, None, '{"prompt": "a"}'),
    ]
    assert sum(it.bad for it in skipped.store.counts) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_that_encoding_leaves_out_are_counted_with_their_places(tmp_path: Path, workers: int) -> None:
    rows = []
    for number in range(40):
        text = "long " * 200 if number in (9, 30) else "b"
        weight = {"weight": 0} if number % 8 == 3 else {}
        rows.append({"messages": [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": text, **weight}]})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    encoder = encoder_of(tmp_path / "rows.jsonl", kind="sft", score_turns="all", limits=Limits(40))
    for _ in range(2):  # built, then opened
        store = opened(encoder, tmp_path / "c", workers).store
        report = tell(store.counts, encoder.paths).encoding
        [(reason, count)] = report.refused.items()
        assert (len(store.examples), report.kept, count, report.dropped_too_long) == (33, 33, 5, 2) and "marks every answer" in reason
        assert (report.refused_at[reason], report.too_long_at) == (f"{tmp_path}/rows.jsonl:4", f"{tmp_path}/rows.jsonl:10")


def test_no_row_left_is_an_error(tmp_path: Path, pairs: Path) -> None:
    for changes, message in (
        ({"limits": Limits(3)}, "^none of 75 rows can be used: 75 too long for src_length None and max_length 3"),
        ({"share": (0.0, 1e-9)}, r"^data_split: none of the 75 training records lies in this share, 0 to 1e-09 of all\.$"),
        ({"limits": Limits(3, truncation="cut")}, "^truncation: 'cut' is not one of"),
    ):
        with pytest.raises(UserError, match=message):
            opened(encoder_of(pairs, **changes), tmp_path / "c")


def children() -> list[str]:
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [child for child in found if "State:\tZ" not in Path(f"/proc/{child}/status").read_text()]


def test_workers_end_with_the_work_and_a_killed_one_is_told(pairs: Path) -> None:
    encoder = encoder_of(pairs)
    tasks = [Task(chunk, False) for chunk, _ in chunks_of(encoder)]
    before = children()
    results = in_order(encoder, iter(tasks), 2)
    next(results)
    assert len(children()) == len(before) + 2
    results.close()
    assert children() == before
    results = in_order(encoder, iter(tasks), 1)
    next(results)
    [worker] = set(children()) - set(before)
    os.kill(int(worker), signal.SIGKILL)
    with pytest.raises(UserError, match=r"^dataset_num_proc: a process that encodes rows ended early \(signal 9, .*no memory"):
        list(results)
    assert children() == before


def test_a_worker_knows_no_paddle() -> None:
    """It would cost seconds and hundreds of megabytes in each."""
    script = "import sys, paddlealign.data.workers; sys.exit('paddle' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    """100 MB of rows, most of it in a column that no form reads: peak memory grows by a part of that."""
    path, filler = tmp_path / "large.jsonl", "x" * 50_000
    with path.open("w") as file:
        for number in range(2000):
            file.write(json.dumps({"prompt": f"q{number}", "chosen": "a", "rejected": "b", "source": filler}) + "\n")
    script = f"""{OWN_PROCESS}
def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
encoder, before = encoder_of(Path(sys.argv[1])), peak()
assert len(opened(encoder, Path(sys.argv[2])).store.examples) == 2000
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(tmp_path / "c")], cwd=ROOT, timeout=120, check=True, capture_output=True, text=True
    )
    assert path.stat().st_size > 100e6 and int(done.stdout) * 1024 < 70e6


def test_examples_behave_as_a_sequence(pairs: Path, tmp_path: Path) -> None:
    examples = opened(encoder_of(pairs), tmp_path / "c").store.examples
    alone: Sequence[Any] = list(examples)
    again = Examples.of(alone)
    assert examples_hash(again) == examples_hash(alone) == examples_hash(examples) and again.margins.tolist() == examples.margins.tolist()
    assert examples_hash([examples[-1]]) == examples_hash(examples[len(alone) - 1 :]) and len(examples[2:5]) == 3
    assert np.shares_memory(examples[3].prompt_ids, examples.tokens) and not examples[3].prompt_ids.flags.writeable
    with pytest.raises(IndexError):
        examples[len(alone)]
    nothing = Examples.of([])
    assert not nothing and nothing.lengths.tolist() == nothing.text_lengths.tolist() == []


def test_nothing_is_a_store_until_it_is_whole(tmp_path: Path, pairs: Path) -> None:
    assert open_store(tmp_path) is None
    folder = opened(encoder_of(pairs), tmp_path / "c").folder
    (folder / SUMMARY).unlink()
    assert open_store(folder) is None
