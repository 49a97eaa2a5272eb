"""A run's folder as the page reads it: run.json, metrics.jsonl, data.json, the sampled answers and the margins. Without a framework."""

import json
import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddlealign.arguments.paths import DATA_FILE, MARGINS_FOLDER, METRICS_FILE, RUN_FILE, SAMPLES_FOLDER
from paddlealign.errors import UserError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A metric's rows in order. steps: int64; values: float64, nan where metrics.jsonl has null. Arrays: a run may log a million rows."""

    steps: MutableSequence[int]
    values: MutableSequence[float]


@dataclass(frozen=True)
class RunFiles:
    """What a run has left so far.

    folder: the run's. name: what it is called on the page. run: run.json. columns: the metrics of metrics.jsonl by name, "step" too. data:
    data.json, empty where there is none. samples, margins: of the first and of the last step that has some, by step; one, or none, where
    there are no more.
    """

    folder: Path
    name: str
    run: Mapping[str, Any]
    columns: Mapping[str, Column]
    data: Mapping[str, Any]
    samples: Mapping[int, Sequence[Row]]
    margins: Mapping[int, Mapping[str, Any]]

    @property
    def arguments(self) -> dict[str, Any]:
        """The effective arguments, key to value."""
        return {key: item["value"] for section in self.run["arguments"].values() for key, item in section.items()}

    @property
    def last_step(self) -> int:
        """The last step that the run log knows."""
        return max(self.columns["step"].steps) if "step" in self.columns else 0

    def log_rows(self) -> Iterator[Row]:
        """The rows of metrics.jsonl, read anew."""
        return (row for row in read_lines(self.folder / METRICS_FILE) if isinstance(row.get("step"), int))


def read_run(folder: Path, name: str | None = None) -> RunFiles:
    """Read a run's folder, also while the run goes on: a last line that is half written is left out. Raises UserError.

    name: of the run on the page; None for its folder's.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no run: {RUN_FILE} is missing. Name the output_dir of sft_main.py, reward_main.py or dpo_main.py.")
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        sections = run["arguments"].values()
        well_formed = all({"value", "source"} <= item.keys() for section in sections for item in section.values())
        if not well_formed or not isinstance(run["command"], str):
            raise TypeError("a key without value or source")
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as a run's ({error}). Put a good copy back, or run again.") from error
    return RunFiles(
        folder,
        name or folder.resolve().name,
        run,
        columns_of(read_lines(folder / METRICS_FILE)),
        _object(folder / DATA_FILE),
        {step: list(read_lines(file)) for step, file in _first_and_last(folder / SAMPLES_FOLDER, "jsonl")},
        {step: _object(file) for step, file in _first_and_last(folder / MARGINS_FOLDER, "json")},
    )


def columns_of(rows: Iterable[Row]) -> dict[str, Column]:
    """The metrics of the rows that have a step."""
    columns: dict[str, Column] = {}
    for row in rows:
        step = row.get("step")
        if not isinstance(step, int) or not 0 <= step < 2**63:
            continue
        for name, value in row.items():
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63):
                column = columns.setdefault(name, Column(array("q"), array("d")))
                column.steps.append(step)
                column.values.append(math.nan if value is None else value)
    return columns


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines up to the first line that is none; no file has none."""
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except OSError:
        return
    with file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                return
            if not isinstance(row, dict):
                return
            yield row


def _object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty where there is none. The page does without."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _first_and_last(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    """The files ``step-<N>.<suffix>`` of the lowest and of the highest step."""
    named = [(re.fullmatch(rf"step-(\d+)\.{suffix}", path.name), path) for path in sorted(folder.glob(f"step-*.{suffix}"))]
    found = sorted((int(match[1]), path) for match, path in named if match)
    return [found[0], found[-1]] if len(found) > 1 else found
