"""What the commands that do not train share in reading rows: their keys, and a file for the rows that are skipped."""

from collections.abc import Sequence
from pathlib import Path

from paddlealign.arguments.paths import REFUSED_FILE
from paddlealign.arguments.row_fields import ReadRowArguments, read_columns
from paddlealign.data.records import RowReading
from paddlealign.data.refusals import RefusedRow, write_refusals
from paddlealign.recipes.device import say


def reading_of(rows: ReadRowArguments) -> RowReading:
    """How rows are read, by the keys."""
    return RowReading(columns=read_columns(rows), system_prompt=rows.system_prompt)


def refused_path(output_file: str) -> Path:
    """Where the rows are kept that were skipped on the way to an output file."""
    return Path(f"{output_file}.{REFUSED_FILE}")


def keep_refusals(path: Path, refused: Sequence[RefusedRow]) -> None:
    """Write the rows that were skipped, and say where; where there are none, an older file of them is removed."""
    write_refusals(path, refused)
    if refused:
        say(f"note: the {len(refused):,} skipped rows are in {path}")
