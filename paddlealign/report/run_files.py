"""A run's folder as the page reads it: run.json, metrics.jsonl, data.json, the sampled answers and the margins. Without a framework."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddlealign.arguments.paths import DATA_FILE, MARGINS_FOLDER, METRICS_FILE, RUN_FILE, SAMPLES_FOLDER
from paddlealign.errors import UserError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunFiles:
    """What a run has left so far.

    name: what it is called on the page. run: run.json. rows: of metrics.jsonl, in order. data: data.json, empty where there is none.
    samples, margins: of the first and of the last step that has some, by step; one, or none, where there are no more.
    """

    name: str
    run: Mapping[str, Any]
    rows: Sequence[Row]
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
        return max((row["step"] for row in self.rows), default=0)


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
    rows = [row for row in read_lines(folder / METRICS_FILE) if isinstance(row.get("step"), int)]
    return RunFiles(
        name or folder.resolve().name,
        run,
        rows,
        _object(folder / DATA_FILE),
        {step: read_lines(file) for step, file in _first_and_last(folder / SAMPLES_FOLDER, "jsonl")},
        {step: _object(file) for step, file in _first_and_last(folder / MARGINS_FOLDER, "json")},
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines up to the first line that is none; no file has none."""
    rows: list[dict[str, Any]] = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return rows
    for line in text.split("\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    return rows


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
