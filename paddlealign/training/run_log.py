"""What a run leaves for people and for programs to read: metrics.jsonl always, VisualDL when asked for."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from paddlealign.arguments.paths import INCIDENTS_FILE, METRICS_FILE


class RunLog:
    """Writes one JSON object a line to ``output_dir/metrics.jsonl``, each line flushed as it is written."""

    def __init__(
        self,
        output_dir: Path | None,
        first_step: int,
        report_to: str,
        hear: Callable[[dict[str, Any]], None] = lambda line: None,
    ) -> None:
        """Open the log. first_step: lines of later steps are left over from a run that went on after its last checkpoint; they go.

        output_dir: None where another process writes the run's log. hear: is told each line that this process writes.
        """
        self._hear = hear
        self._file: TextIO | None = None
        self._visualdl = None
        if output_dir is None:
            return
        self._path = output_dir / METRICS_FILE
        kept = [line for line in _lines(self._path) if line.get("step", 0) <= first_step] if first_step else []
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        if report_to == "visualdl":
            from visualdl import LogWriter  # here, since it takes a second to import

            self._visualdl = LogWriter(logdir=str(output_dir / "visualdl"))

    def write(self, values: dict[str, Any]) -> None:
        """Append one line. values must hold "step"; numbers only otherwise. A number that is not finite becomes null: JSON has none."""
        if self._file is None:
            return
        self._file.write(json.dumps({name: value if math.isfinite(value) else None for name, value in values.items()}) + "\n")
        self._file.flush()
        if self._visualdl is not None:
            for name, value in values.items():
                if name != "step":
                    self._visualdl.add_scalar(tag=name, value=value, step=values["step"])
        self._hear(values)

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
        if self._visualdl is not None:
            self._visualdl.close()


class IncidentLog:
    """Writes what went wrong, and in which rows, to ``output_dir/incidents.jsonl``, one JSON object a line; no file where nothing did."""

    def __init__(self, output_dir: Path | None, first_step: int) -> None:
        """first_step, output_dir: see ``RunLog``."""
        self._path = None if output_dir is None else output_dir / INCIDENTS_FILE
        if self._path is not None and self._path.exists():
            kept = [line for line in _lines(self._path) if line.get("step", 0) <= first_step]
            self._path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def write(self, values: dict[str, Any]) -> None:
        """Append one line. A number that is not finite becomes a text: JSON has none."""
        if self._path is None:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain_numbers(values), ensure_ascii=False) + "\n")


def plain_numbers(value: Any) -> Any:
    """A value for JSON, in which numbers that are not finite are texts: "nan", "inf"."""
    if isinstance(value, dict):
        return {name: plain_numbers(it) for name, it in value.items()}
    if isinstance(value, list):
        return [plain_numbers(it) for it in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_incidents(output_dir: Path) -> list[dict[str, Any]]:
    """Read a run's incidents.jsonl; none where there is no such file."""
    return _lines(output_dir / INCIDENTS_FILE)


def read_metrics(output_dir: Path) -> list[dict[str, Any]]:
    """Read a run's metrics.jsonl; an unfinished last line is left out."""
    return _lines(output_dir / METRICS_FILE)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
