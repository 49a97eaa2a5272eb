"""The file that predict.py writes: one JSON line per row in the input's order, and a stopped run goes on where it ended.

Beside it lies ``<name>.settings.json``: what the outputs depend on. A file that was made otherwise is never continued or overwritten.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paddlealign.arguments.fields import GenerationArguments
from paddlealign.arguments.model_files import read_json_object
from paddlealign.errors import UserError
from paddlealign.models.tensor_files import write_json

OUTPUT_KEY = "output"


def settings_path(output_file: Path) -> Path:
    """Where the settings of an output file are kept."""
    return output_file.with_name(output_file.name + ".settings.json")


def prepare_output(output_file: Path, rows: Sequence[dict[str, Any]], settings: dict[str, Any]) -> int:
    """Find or begin the output file; returns how many rows are in it already.

    rows: the input's rows in order. settings: JSON values that decide what is generated. A torn last line is cut off. Raises UserError
    where the file was made from other rows or under other settings, or was not made by predict.py.
    """
    settings_file = settings_path(output_file)
    output_file.parent.mkdir(parents=True, exist_ok=True)
    if not output_file.exists():
        write_json(settings_file, settings)
        output_file.touch()
        return 0
    advice = "Name another output_file, or remove this one to make it anew."
    if not settings_file.is_file():
        if output_file.stat().st_size == 0:
            write_json(settings_file, settings)
            return 0
        raise UserError(f"output_file: {output_file} exists, and no {settings_file.name} beside it says how it was made. {advice}")
    before = _read_settings(settings_file)
    # A key that is younger than the file decides nothing as long as it has its default.
    defaults = {key: getattr(GenerationArguments, key) for key in settings.keys() - before.keys() if hasattr(GenerationArguments, key)}
    before = defaults | before
    changed = [f"{key} was {before.get(key)}, is {settings.get(key)}" for key in settings | before if before.get(key) != settings.get(key)]
    if changed:
        raise UserError(f"output_file: {output_file} was made under other settings: {'; '.join(changed)}. {advice}")
    return _count_done(output_file, rows, advice)


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except UserError as error:
        raise UserError(f"{path}: not the settings of an output file. Remove it and the output file to begin anew.") from error


def _count_done(output_file: Path, rows: Sequence[dict[str, Any]], advice: str) -> int:
    """The number of whole lines, each compared with its row; what follows the last line end is cut off."""
    done = whole_bytes = 0
    with open(output_file, "r+b") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                written = json.loads(line)
            except ValueError:
                written = None
            if number > len(rows) or not isinstance(written, dict) or OUTPUT_KEY not in written:
                raise UserError(f"{output_file}, line {number}: not an output for the rows of data_file. {advice}")
            written.pop(OUTPUT_KEY)
            if as_line(written) != as_line(rows[number - 1]):
                raise UserError(f"{output_file}, line {number}: holds another row than data_file does at this place. {advice}")
            done, whole_bytes = number, whole_bytes + len(line)
        file.truncate(whole_bytes)
    return done


def append_outputs(output_file: Path, rows: Sequence[dict[str, Any]], outputs: Sequence[str | list[str]]) -> None:
    """Append finished rows, each with its text or its list of texts, and bring them to the disk."""
    lines = [as_line({**row, OUTPUT_KEY: output}) for row, output in zip(rows, outputs, strict=True)]
    with open(output_file, "ab") as file:
        file.write("".join(f"{line}\n" for line in lines).encode("utf-8", errors="backslashreplace"))
        file.flush()
        os.fsync(file.fileno())


def as_line(row: dict[str, Any]) -> str:
    """A row as one line of JSON."""
    return json.dumps(row, ensure_ascii=False)
