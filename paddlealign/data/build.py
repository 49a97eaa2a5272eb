"""From files of rows to a store: opened where it is there, built where it is not, and gone on with where a build was broken off.

A store's name is a hash of all that it depends on. Its bytes do not depend on how many processes built it, or on how often that was
broken off: the borders of chunks follow from the rows alone, and chunks are written in their order.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path

from tqdm import tqdm

from paddlealign.data.chunk import Chunk, Encoder, first_form, read_chunk
from paddlealign.data.chunk_counts import Told, tell
from paddlealign.data.encoding import TRUNCATIONS, examples_hash, nothing_left
from paddlealign.data.example import Record
from paddlealign.data.examples import Examples
from paddlealign.data.mismatched import with_mismatched
from paddlealign.data.pieces import Piece
from paddlealign.data.refusals import SHOWN_PROBLEMS, RefusedRow, kept_refusals, raise_refusals
from paddlealign.data.row_forms import ROW_FORMS
from paddlealign.data.sources import pieces
from paddlealign.data.store import SUMMARY, Store, StoreDamagedError, StoreWriter, map_store, open_store
from paddlealign.data.workers import Task, in_order
from paddlealign.errors import UserError
from paddlealign.messages.language import translated

CHUNK_ROWS, CHUNK_BYTES = 512, 8 << 20
# With fewer chunks to encode, starting processes takes longer than they save.
_WORTH_WORKERS = 3
_LOCK = "lock"


@dataclass(frozen=True)
class Building:
    """How stores are built; nothing of it changes one.

    cache: the folder that they stand in. workers: processes; 1: this one. show: whether there is a bar. say: prints a line.
    """

    cache: Path
    workers: int
    show: bool
    say: Callable[[str], None]


@dataclass(frozen=True)
class Opened:
    """A store in its folder. reused: whether it was there before."""

    store: Store
    folder: Path
    reused: bool


@dataclass
class _Findings:
    """What is wrong with rows, while the others are still read. The first problems are kept, all are counted."""

    problems: list[RefusedRow] = field(default_factory=list)
    wrong: int = 0
    rows: int = 0
    failure: str | None = None

    @property
    def stops(self) -> bool:
        return bool(self.wrong or self.failure)


def fingerprint(encoder: Encoder, content: str) -> str:
    """The name of a store: a hash of all that decides what is in it, 32 hexadecimal digits.

    content: ``data_hash`` of the files. The code of this folder and the libraries that it calls count, so nothing is taken over from a
    version that may have encoded otherwise; paths do not.
    """
    told = {
        "content": content,
        "kinds of files": ["".join(path.suffixes[-2:]) for path in encoder.paths],
        "settings": asdict(encoder.settings),
        "tokenizer": encoder.tokenizer.fingerprint,
        "template": encoder.template.fingerprint,
        "chunks": [CHUNK_ROWS, CHUNK_BYTES],
        "code": _code_hash(),
        "libraries": [version(name) for name in ("tokenizers", "jinja2", "numpy", "pyarrow")],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _code_hash() -> str:
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:  # where another process may just be writing
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def open_or_build(split: str, encoder: Encoder, content: str, building: Building) -> Opened:
    """The store of some files: the one that is there, or a new one. split: what it is of, for the lines that are told.

    Of several processes that ask for the same store the first builds it and the others wait. Raises UserError where rows are wrong, or
    where none is left.
    """
    if encoder.settings.limits.truncation not in TRUNCATIONS:
        raise UserError(f"truncation: {encoder.settings.limits.truncation!r} is not one of {', '.join(TRUNCATIONS)}.")
    folder = building.cache / fingerprint(encoder, content)
    reused = True
    while True:
        found = _look(folder)
        if isinstance(found, Store):
            return Opened(found, folder, reused)
        with _locked(folder, split, building.say):
            if found is None and (folder / SUMMARY).exists():
                continue  # another process has built it meanwhile
            if isinstance(_look(folder), str):
                building.say(f"note: {split}: the encoded rows in {folder} are damaged ({found}); they are encoded anew")
                _clear(folder)
            _build(split, encoder, folder, building)
            reused = False


def _look(folder: Path) -> Store | str | None:
    """The store in a folder, or what is wrong with it, or None where there is none."""
    try:
        return open_store(folder)
    except StoreDamagedError as error:
        return str(error)


@contextmanager
def _locked(folder: Path, split: str, say: Callable[[str], None]) -> Iterator[None]:
    """The folder for this process alone; others wait."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _LOCK).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                say(f"{split}: another process encodes the same rows; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                same = (folder / _LOCK).stat().st_ino
            except FileNotFoundError:
                continue  # whoever had the lock took the folder away
            if same == os.fstat(file.fileno()).st_ino:
                yield
                return


def _clear(folder: Path) -> None:
    """Take away a store; whoever has it mapped may read on."""
    for path in folder.iterdir():
        if path.name != _LOCK:
            path.unlink()


def remove_others(cache: Path, keep: Sequence[Path]) -> None:
    """Take away the stores in a folder that are not among ``keep`` and that nobody is building."""
    for folder in cache.iterdir() if cache.is_dir() else ():
        lock = folder / _LOCK
        if folder in keep or not lock.is_file():
            continue
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            shutil.rmtree(folder, ignore_errors=True)


def _build(split: str, encoder: Encoder, folder: Path, building: Building) -> None:
    """Write a store, or what is missing of it. Where the rows are wrong nothing of it stays."""
    writer = StoreWriter(folder)
    try:
        if writer.chunks:
            rows = sum(line.counts.rows for line in writer.lines)
            building.say(f"{split}: {rows:,} rows were encoded before; going on from there")
        findings = _write_chunks(split, encoder, writer, building)
        raise_refusals(findings.problems, findings.wrong, findings.rows, ROW_FORMS[encoder.settings.kind])
        if findings.failure:
            raise UserError(findings.failure)
        store = map_store(folder, writer.lines)
        _check_some_left(encoder, store)
        writer.finish(examples_hash(trained_on(encoder, store)))
    except UserError:
        shutil.rmtree(folder)
        raise
    finally:
        writer.close()


def _write_chunks(split: str, encoder: Encoder, writer: StoreWriter, building: Building) -> _Findings:
    """Encode the chunks that the writer does not have. After the first row that stops the run, the others are only read."""
    done, findings = writer.chunks, _Findings(rows=sum(line.counts.rows for line in writer.lines))
    sizes: deque[int] = deque()

    def tasks() -> Iterator[Task]:
        for number, (chunk, size) in enumerate(chunks_of(encoder)):
            if number >= done:
                sizes.append(size)
                yield Task(chunk, findings.stops)
            else:
                bar.update(size)

    total = sum(path.stat().st_size for path in encoder.paths)
    with tqdm(
        total=total, desc=translated(f"{split}: encoding", sys.stderr), unit="B", unit_scale=True, disable=not building.show, leave=False
    ) as bar:
        waiting = tasks()
        first = list(islice(waiting, _WORTH_WORKERS))
        workers = building.workers if building.workers > 1 and len(first) == _WORTH_WORKERS else 0
        with closing(in_order(encoder, chain(first, waiting), workers)) as results:
            for chunk in results:
                findings.rows += chunk.counts.rows
                if encoder.settings.on_bad_row == "error":
                    path = encoder.paths[chunk.counts.file]
                    shown = chunk.bad[: SHOWN_PROBLEMS - len(findings.problems)]
                    findings.problems += [RefusedRow(bad.at(path), bad.reason, bad.text) for bad in shown]
                    findings.wrong += len(chunk.bad)
                findings.failure = findings.failure or chunk.failure
                if not findings.stops:
                    writer.add(chunk)
                bar.update(sizes.popleft())
                bar.set_postfix_str(f"{findings.rows:,} rows", refresh=False)
    return findings


def chunks_of(encoder: Encoder) -> Iterator[tuple[Chunk, int]]:
    """The rows of all files in chunks, each with its size as a part of the files' bytes."""
    for number, path in enumerate(encoder.paths):
        form, left = None, path.stat().st_size
        gathered: list[Piece] = []
        size = 0
        for piece in chain(pieces(path), (None,)):
            if piece is not None:
                gathered.append(piece)
                size += len(piece.raw or b"")
            if gathered and (piece is None or len(gathered) == CHUNK_ROWS or size >= CHUNK_BYTES):
                form = form or first_form(encoder, Chunk(number, tuple(gathered), None))
                part = left if piece is None else min(size, left)
                yield Chunk(number, tuple(gathered), form), part
                gathered, size, left = [], 0, left - part


def told_of(encoder: Encoder, store: Store) -> Told:
    """What is told of the rows of a store."""
    return tell(store.counts, encoder.paths, kept_refusals([(store.refused, encoder.paths)]))


def _check_some_left(encoder: Encoder, store: Store) -> None:
    """Raise UserError where no record, or no example, came of all rows."""
    told, kind = told_of(encoder, store), encoder.settings.kind
    if not told.read.records:
        seen = [f"{count} x {reason}, first at {told.read.refused_at[reason]}" for reason, count in told.read.refused.items()]
        bad = told.read.skipped
        seen += [f"{len(bad)} x bad rows, which were skipped, first at {bad[0].source}: {bad[0].reason}"] if len(bad) else []
        raise UserError(f"{encoder.paths[0]}: no usable row ({'; '.join(seen) or 'there are none'}). Allowed: {ROW_FORMS[kind]}.")
    if told.encoding.rows == 0:
        start, end = encoder.settings.share or (0, 1)
        raise UserError(
            f"data_split: none of the {told.read.records:,} training records lies in this share, {start:.3g} to {end:.3g} of all."
        )
    if not told.encoding.kept:
        raise UserError(nothing_left(told.encoding, encoder.settings.limits))


def trained_on(encoder: Encoder, store: Store) -> Examples:
    """The examples of a store as a run sees them: those of labelled rows have an answer to another prompt beside their own."""
    if encoder.settings.kind != "labelled":
        return store.examples
    return with_mismatched(store.examples, store.records["tokens"][store.kept], encoder.settings.limits.max_length)


def records_behind(encoder: Encoder, store: Store) -> Iterator[Record]:
    """The records that the examples of a store were made of, in their order, read from the files once more."""
    number = 0
    for chunk, _ in chunks_of(encoder):
        for _, record in read_chunk(encoder, chunk).records:
            if store.records["responses"][number]:
                yield record
            number += 1
