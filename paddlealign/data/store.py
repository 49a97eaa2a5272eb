"""A data set in tokens on disk: a few flat files in a folder, written chunk by chunk and read where they are looked at.

    tokens.bin     int32 ids, prompt and responses of one example after another
    scored.bin     bool, one for each token
    segments.bin   SEGMENT, where each prompt and each response lies
    records.bin    RECORD, one for each record, also for those that gave no example
    refused.jsonl  the bad rows that were skipped, and what is wrong with each
    journal.jsonl  a line for each chunk: how long the files above are after it, checksums of what it added, and its counts
    store.json     comes last: with it the store is whole

Files only grow, and a chunk counts once its line stands in the journal: a build that was broken off goes on behind the last whole chunk.
A store that is whole is never written to again, only taken away, so whoever has it mapped may read on.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paddlealign.data.chunk import RECORD, EncodedChunk
from paddlealign.data.chunk_counts import ChunkCounts
from paddlealign.data.examples import SEGMENT, Examples, lay_out
from paddlealign.data.refusals import keep

FILES = ("tokens.bin", "scored.bin", "segments.bin", "records.bin", "refused.jsonl")
JOURNAL, SUMMARY = "journal.jsonl", "store.json"
_DTYPES = {"tokens.bin": np.dtype("<i4"), "scored.bin": np.dtype("?"), "segments.bin": SEGMENT, "records.bin": RECORD}
_BLOCK = 1 << 20


@dataclass(frozen=True)
class JournalLine:
    """A chunk that is written. ends: how long each of ``FILES`` is after it. sums: crc32 of what it added to each.

    highest_id: of its tokens, -1 where there is none.
    """

    ends: tuple[int, ...]
    sums: tuple[int, ...]
    highest_id: int
    counts: ChunkCounts


@dataclass(frozen=True)
class Store:
    """A whole store, mapped.

    records: RECORD. kept: int64 [examples], the record that each example is of. refused: uint8, for ``kept_refusals``.
    tokens_hash: ``examples_hash`` of what is trained on.
    """

    examples: Examples
    records: np.ndarray
    kept: np.ndarray
    refused: np.ndarray
    counts: tuple[ChunkCounts, ...]
    highest_id: int
    tokens_hash: str


class StoreDamagedError(Exception):
    """A store whose files are not what was written. The text says which file, and what is wrong with it."""


def read_journal(folder: Path) -> list[JournalLine]:
    """The chunks that are whole on disk, up to the first that is not: their lines, with what they added to every file held to its sum."""
    lines: list[JournalLine] = []
    if not (folder / JOURNAL).exists():
        return lines
    with ExitStack() as stack:
        files = [stack.enter_context((folder / name).open("rb")) for name in FILES if (folder / name).exists()]
        if len(files) < len(FILES):
            return lines
        before: Sequence[int] = [0] * len(FILES)
        for text in (folder / JOURNAL).read_bytes().splitlines(keepends=True):
            line = _journal_line(text)
            if line is None:
                break
            sizes = [end - start for start, end in zip(before, line.ends, strict=True)]
            if [_checksum(file, size) for file, size in zip(files, sizes, strict=True)] != list(line.sums):
                break
            lines.append(line)
            before = line.ends
    return lines


def _journal_line(text: bytes) -> JournalLine | None:
    """What a line of the journal says; None where it was not written whole."""
    try:
        values = json.loads(text) if text.endswith(b"\n") else {}
        line = JournalLine(tuple(values["ends"]), tuple(values["sums"]), values["highest_id"], ChunkCounts.from_json(values["counts"]))
        return line if len(line.ends) == len(line.sums) == len(FILES) else None
    except (ValueError, KeyError, TypeError):
        return None


def _checksum(file: Any, size: int) -> int:
    """crc32 of the next bytes of a file; -1 where there are fewer."""
    total = 0
    while size > 0:
        block = file.read(min(size, _BLOCK))
        if not block:
            return -1
        total, size = zlib.crc32(block, total), size - len(block)
    return total


class StoreWriter:
    """A store that is being built. chunks: how many it has; ``add`` gives it the next."""

    def __init__(self, folder: Path) -> None:
        """Go on behind the last whole chunk in the folder, or begin. Nobody else may write there."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SUMMARY).unlink(missing_ok=True)
        self.folder, self.lines = folder, read_journal(folder)
        ends = self.lines[-1].ends if self.lines else (0,) * len(FILES)
        self._files = [(folder / name).open("ab") for name in FILES]
        for file, end in zip(self._files, ends, strict=True):
            file.truncate(end)
        whole = (folder / JOURNAL).read_bytes().splitlines(keepends=True)[: len(self.lines)] if self.lines else []
        self._journal = (folder / JOURNAL).open("ab")
        self._journal.truncate(sum(map(len, whole)))
        self._ends = list(ends)

    @property
    def chunks(self) -> int:
        """How many chunks are written."""
        return len(self.lines)

    def add(self, chunk: EncodedChunk) -> None:
        """Write the next chunk: first what it holds, then its line in the journal."""
        tokens, segments = self._ends[0] // _DTYPES["tokens.bin"].itemsize, self._ends[2] // SEGMENT.itemsize
        records = chunk.records.copy()
        records["first"] += segments
        refused = "".join(keep(chunk.counts.file, row) for row in chunk.bad)
        parts = [
            chunk.tokens.astype("<i4").tobytes(),
            chunk.scored.tobytes(),
            lay_out(chunk.lengths, tokens).tobytes(),
            records.tobytes(),
            refused.encode(),
        ]
        for file, part in zip(self._files, parts, strict=True):
            file.write(part)
            file.flush()
        self._ends = [end + len(part) for end, part in zip(self._ends, parts, strict=True)]
        highest = int(chunk.tokens.max()) if len(chunk.tokens) else -1
        line = JournalLine(tuple(self._ends), tuple(map(zlib.crc32, parts)), highest, chunk.counts)
        values = {"ends": line.ends, "sums": line.sums, "highest_id": highest, "counts": chunk.counts.as_json()}
        self._journal.write(json.dumps(values).encode() + b"\n")
        self._journal.flush()
        self.lines.append(line)

    def finish(self, tokens_hash: str) -> None:
        """Say that the store is whole. tokens_hash: of its examples, as they are trained on."""
        for file in [*self._files, self._journal]:
            os.fsync(file.fileno())
        self.close()
        journal = hashlib.sha256((self.folder / JOURNAL).read_bytes()).hexdigest()
        partial = self.folder / f"{SUMMARY}.partial"
        with partial.open("w", encoding="utf-8") as summary:
            json.dump({"tokens_hash": tokens_hash, "journal": journal, "chunks": self.chunks}, summary)
            summary.flush()
            os.fsync(summary.fileno())
        partial.replace(self.folder / SUMMARY)

    def close(self) -> None:
        """Let the files go; what is written stays."""
        for file in [*self._files, self._journal]:
            file.close()


def open_store(folder: Path) -> Store | None:
    """The store in a folder where it is whole; None where none was finished there. Raises StoreDamagedError.

    All of it is read once, block by block, and held to its checksums.
    """
    if not (folder / SUMMARY).exists():
        return None
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        told = (str(summary["tokens_hash"]), summary["journal"], summary["chunks"])
        journal = hashlib.sha256((folder / JOURNAL).read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreDamagedError(f"{SUMMARY} or {JOURNAL} cannot be read ({error})") from None
    if journal != told[1]:
        raise StoreDamagedError(f"{JOURNAL} is not what was written")
    lines = read_journal(folder)
    if len(lines) != told[2]:
        raise StoreDamagedError(f"the files of its chunk {len(lines) + 1} are not what was written")
    for name, end in zip(FILES, lines[-1].ends if lines else (), strict=False):
        if (folder / name).stat().st_size != end:
            raise StoreDamagedError(f"{name} is longer than what was written")
    return map_store(folder, lines, told[0])


def map_store(folder: Path, lines: Sequence[JournalLine], tokens_hash: str = "") -> Store:
    """The files of a folder as arrays that are read where they are looked at."""
    tokens, scored, segments, records = (_mapped(folder / name, dtype) for name, dtype in _DTYPES.items())
    kept = np.flatnonzero(records["responses"])
    first = np.append(records["first"][kept], len(segments))
    examples = Examples(tokens, scored, segments, first, records["margin"][kept])
    highest = max((line.highest_id for line in lines), default=-1)
    return Store(
        examples,
        records,
        kept,
        _mapped(folder / "refused.jsonl", np.dtype("u1")),
        tuple(line.counts for line in lines),
        highest,
        tokens_hash,
    )


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    """A file as a read-only array; an empty one cannot be mapped."""
    if not path.stat().st_size:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, mode="r").view(np.ndarray)
