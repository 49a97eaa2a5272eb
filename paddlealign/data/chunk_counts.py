"""What is counted of a data set while it is encoded: of a chunk of rows, in numbers and lines; of all of them, in words for the user."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from paddlealign.data.encoding_report import EncodingReport
from paddlealign.data.pieces import Piece
from paddlealign.data.records import ReadReport, RowOutcome
from paddlealign.data.refusals import RefusedRow

# How often something stood in a chunk, and in which line first.
Seen = list[int]


@dataclass
class ChunkCounts:
    """The counts of one chunk; files are numbers and places are lines, so that they hold wherever the files lie.

    file: its number. first_form: of the file, None until it is known. rows, used, records, bad: as in ``ReadReport``. other_shares: records
    that data_split gives others. literal: rows that were Python literals. forms, refused: name or reason -> count and first line.
    encoding: its ``refused_at`` are lines.
    """

    file: int
    first_form: str | None = None
    rows: int = 0
    used: int = 0
    records: int = 0
    bad: int = 0
    other_shares: int = 0
    literal: int = 0
    forms: dict[str, Seen] = field(default_factory=dict)
    refused: dict[str, Seen] = field(default_factory=dict)
    encoding: EncodingReport = field(default_factory=EncodingReport)

    def take(self, piece: Piece, outcome: RowOutcome) -> None:
        """Count a row."""
        self.rows += 1
        if outcome.bad is not None or outcome.form is None:
            self.bad += 1
            return
        self.literal += piece.literal
        self.used += bool(outcome.records)
        self.records += len(outcome.records)
        for table, name in [(self.forms, outcome.form), *((self.refused, reason) for reason in outcome.reasons)]:
            table.setdefault(name, [0, piece.line])[0] += 1

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, for ``from_json``."""
        values = asdict(self)
        values["encoding"]["refused"] = dict(self.encoding.refused)  # asdict makes a Counter of its pairs, each counted once
        return values

    @staticmethod
    def from_json(values: dict[str, Any]) -> "ChunkCounts":
        """The counts that ``as_json`` gave. Raises TypeError where they are of another form."""
        encoding = EncodingReport(**values["encoding"])
        encoding.refused = Counter(encoding.refused)
        return ChunkCounts(**{**values, "encoding": encoding})


@dataclass(frozen=True)
class Told:
    """What is told of a whole data set. other_shares: records that data_split gives others."""

    read: ReadReport
    encoding: EncodingReport
    other_shares: int


def tell(counts: Sequence[ChunkCounts], paths: Sequence[Path], skipped: Sequence[RefusedRow] = ()) -> Told:
    """The counts of all chunks together, in the order of the files, whose paths are ``paths``. skipped: their bad rows."""
    refused: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    refused_at: dict[str, str] = {}
    encoding = EncodingReport()
    notes: list[str] = []
    for number, group in groupby(counts, key=lambda it: it.file):
        path, of_file = paths[number], list(group)
        literal, others = 0, dict[str, Seen]()
        for one in of_file:
            literal += one.literal
            for form, (count, line) in one.forms.items():
                forms[form] += count
                if form != one.first_form:
                    others.setdefault(form, [0, line])[0] += count
            for reason, (count, line) in one.refused.items():
                refused[reason] += count
                refused_at.setdefault(reason, f"{path}:{line}")
            encoding.add(one.encoding, str(path))
        if literal:
            notes.append(f"{path}: {literal} rows are Python literals in single quotes, not JSON; read as they are meant.")
        first = next((it.first_form for it in of_file if it.first_form), None)
        notes += [
            f"{path}:{line}: the first of {count:,} rows in the {name} form; the first rows of the file are in the {first} form"
            for name, (count, line) in others.items()
        ]
    read = ReadReport(
        files=tuple(paths),
        rows=sum(it.rows for it in counts),
        used=sum(it.used for it in counts),
        records=sum(it.records for it in counts),
        refused=dict(refused),
        refused_at=refused_at,
        forms=dict(forms),
        warnings=tuple(notes),
        skipped=skipped,
    )
    return Told(read, encoding, sum(it.other_shares for it in counts))
