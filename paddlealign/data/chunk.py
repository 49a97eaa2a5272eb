"""One chunk of rows to tokens: all that is done to rows on their way into a store, a pure function that any process may run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from paddlealign.data.chunk_counts import ChunkCounts
from paddlealign.data.encoding import Limits, encode_records
from paddlealign.data.encoding_report import Encoded, Refusal
from paddlealign.data.example import Record, scored_as
from paddlealign.data.mismatched import prompt_digest
from paddlealign.data.pieces import BadRow, Piece, raw_text
from paddlealign.data.records import RowOutcome, RowReading, read_row, row_rules
from paddlealign.data.repeats import record_digests
from paddlealign.data.shares import in_share
from paddlealign.data.sources import only_texts, row_of
from paddlealign.data.template import Template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError

# A record as a store keeps it. first: its first segment, of ``responses`` + 1; 0 responses where it gave no example. desirable: -1 where
# it has no label. prompted: whether it has a prompt. record, prompt: of ``record_digests``. tokens: of ``prompt_digest``.
RECORD = np.dtype([
    ("first", "<i8"), ("responses", "<i4"), ("margin", "<f8"), ("desirable", "i1"), ("prompted", "?"),
    ("record", "<u8"), ("prompt", "<u8"), ("tokens", "<u8"), ("file", "<i4"), ("line", "<i8"),
])  # fmt: skip


@dataclass(frozen=True)
class EncodingSettings:
    """All settings that decide what a data set's rows become. Whatever is added here is part of a store's name.

    kind: of ``records``. share: from where to below where the records lie that are taken (``shares.place``); None: all.
    score_turns: see ``scored_as``; None: answers are scored whole. chat_template: as ``load_template`` takes it. on_bad_row: error or skip.
    """

    kind: str
    reading: RowReading
    limits: Limits
    share: tuple[float, float] | None
    score_turns: str | None
    chat_template: str
    on_bad_row: str


@dataclass(frozen=True)
class Encoder:
    """What turns chunks of rows into tokens. paths: the files of the data set."""

    settings: EncodingSettings
    tokenizer: Tokenizer
    template: Template
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Chunk:
    """Rows that stand one behind the other in a file. file: its number. first_form: the file's first form, None until it is known."""

    file: int
    pieces: tuple[Piece, ...]
    first_form: str | None


@dataclass(frozen=True)
class EncodedChunk:
    """A chunk's part of a store, and what is told of it.

    tokens: int32. scored: bool. lengths: int32, of the segments. records: RECORD, ``first`` counted from the chunk's first segment.
    bad: its bad rows. failure: of the first row that stops the run for another reason.
    """

    tokens: np.ndarray
    scored: np.ndarray
    lengths: np.ndarray
    records: np.ndarray
    counts: ChunkCounts
    bad: tuple[BadRow, ...]
    failure: str | None


def first_form(encoder: Encoder, chunk: Chunk) -> str | None:
    """The form of the first row of the chunk that has one, by which the file's rows are judged that have none; None where none has."""
    forms = (outcome.form for _, outcome in _outcomes(encoder, chunk))
    return next((form for form in forms if form is not None), None)


def _outcomes(encoder: Encoder, chunk: Chunk) -> Iterator[tuple[Piece, RowOutcome]]:
    settings, path = encoder.settings, encoder.paths[chunk.file]
    rules, texts = row_rules(settings.kind, settings.reading), only_texts(path)
    for found in chunk.pieces:
        piece, row = found, row_of(found)
        if isinstance(row, BadRow):
            outcome = RowOutcome(None, bad=row)
        else:
            piece, outcome = replace(piece, literal=row[1]), read_row(rules, row[0], f"{path}:{piece.line}", chunk.first_form, texts)
        bad = outcome.bad and replace(outcome.bad, text=raw_text(piece) or outcome.bad.text)
        yield piece, replace(outcome, bad=bad)


@dataclass(frozen=True)
class ReadChunk:
    """The records of a chunk that are in the settings' share, each with its line; see ``EncodedChunk`` for the rest."""

    records: list[tuple[int, Record]]
    counts: ChunkCounts
    bad: list[BadRow]


def read_chunk(encoder: Encoder, chunk: Chunk) -> ReadChunk:
    """The rows of a chunk as records."""
    settings = encoder.settings
    found = ReadChunk([], ChunkCounts(chunk.file, chunk.first_form), [])
    for piece, outcome in _outcomes(encoder, chunk):
        found.counts.take(piece, outcome)
        if outcome.bad is not None:
            found.bad.append(outcome.bad)
        mine = outcome.records if settings.share is None else in_share(outcome.records, *settings.share)
        found.counts.other_shares += len(outcome.records) - len(mine)
        found.records.extend((piece.line, it if settings.score_turns is None else scored_as(it, settings.score_turns)) for it in mine)
    return found


def encode_chunk(encoder: Encoder, chunk: Chunk, only_read: bool = False) -> EncodedChunk:
    """All rows of a chunk to tokens. only_read: leave the tokens out, where only the problems of the rows are still of interest."""
    read = read_chunk(encoder, chunk)
    outcomes: list[Encoded | Refusal] = []
    failure = None
    if not only_read:
        try:
            records = [record for _, record in read.records]
            outcomes = list(encode_records(records, encoder.tokenizer, encoder.template, encoder.settings.limits))
        except UserError as error:
            failure = str(error)
    for (line, _), outcome in zip(read.records, outcomes, strict=False):
        read.counts.encoding.count(str(line), outcome)
    arrays = _arrays(chunk.file, read.records, outcomes)
    return EncodedChunk(*arrays, read.counts, tuple(read.bad), failure)


def _arrays(
    file: int, records: Sequence[tuple[int, Record]], outcomes: Sequence[Encoded | Refusal]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, scored marks, lengths of segments, and records, as ``EncodedChunk`` has them."""
    tokens, scored, lengths = [np.zeros(0, np.int32)], [np.zeros(0, bool)], list[int]()
    table = np.zeros(len(outcomes), RECORD)
    for row, (line, record), outcome in zip(table, records, outcomes, strict=False):
        row["record"], row["prompt"] = record_digests(record)
        row["file"], row["line"], row["first"] = file, line, len(lengths)
        row["desirable"] = -1 if record.desirable is None else record.desirable
        row["prompted"] = bool(record.messages)
        if isinstance(outcome, Encoded):
            example = outcome.example
            row["responses"], row["margin"], row["tokens"] = len(example.responses), example.margin, prompt_digest(example.prompt_ids)
            tokens += [example.prompt_ids, *(response.token_ids for response in example.responses)]
            scored += [np.zeros(len(example.prompt_ids), bool), *(response.scored for response in example.responses)]
            lengths += [len(example.prompt_ids), *(len(response.token_ids) for response in example.responses)]
    return np.concatenate(tokens).astype(np.int32), np.concatenate(scored), np.array(lengths, np.int32), table
