"""What a run leaves for people and for programs to read: metrics.jsonl always, and what goes wrong in incidents.jsonl."""

import errno
import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from paddlealign.arguments.paths import INCIDENTS_FILE, METRICS_FILE
from paddlealign.models.tensor_files import write_bytes
from paddlealign.training.viewers import Lines, Viewers


class RunLog:
    """Writes one JSON object a line to ``output_dir/metrics.jsonl``, each line as soon as it is known.

    A line that cannot be written, as on a full disk, ends no run: that is told once, the line is kept, and written when it can be.
    """

    def __init__(
        self,
        output_dir: Path | None,
        first_step: int,
        open_viewers: Callable[[Lines], Viewers] | None = None,
        hear: Callable[[dict[str, Any]], None] = lambda line: None,
        tell: Callable[[str], None] = print,
        repeats: tuple[str, ...] = (),
    ) -> None:
        """Open the log. first_step: lines of later steps are left over from a run that went on after its last checkpoint; they go.

        output_dir: None where another process writes the run's log. open_viewers: of those that get the lines, too. hear: is told each line
        that this process writes. tell: is told what cannot be written. repeats: lines of ``first_step`` that hold one of these names will
        be written again, so they go, too.
        """
        self._hear, self._tell = hear, tell
        self._file: BinaryIO | None = None
        self._viewers: Viewers | None = None
        self._told = False
        if output_dir is None:
            return
        self._path = output_dir / METRICS_FILE
        before = _lines(self._path) if first_step else []
        kept = [line for line in before if line.get("step", 0) <= first_step]
        kept = [line for line in kept if line.get("step") != first_step or not any(name in line for name in repeats)]
        write_bytes(self._path, b"".join(json.dumps(line).encode() + b"\n" for line in kept))
        self._waiting: list[bytes] = []  # lines that could not be written yet; no others are held, however long the run
        self._file = self._path.open("a+b", buffering=0)
        if open_viewers is not None:
            self._viewers = open_viewers(Lines(kept, before))

    def write(self, values: dict[str, Any]) -> None:
        """Append one line. values must hold "step"; numbers only otherwise. A number that is not finite becomes null: JSON has none."""
        if self._file is None:
            return
        line = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._waiting.append(json.dumps(line).encode() + b"\n")
        try:
            self._append()
        except OSError as error:
            if not self._told:
                self._tell(f"note: {self._path} cannot be written: {error.strerror}; the run goes on, and its lines follow when they can")
            self._told = True
        if self._viewers is not None:
            self._viewers.add(line)
        self._hear(values)

    def _append(self) -> None:
        """Write what is not yet written. A line that is written in part is taken back, so that no line stands behind half of one."""
        assert self._file is not None
        if not _same_file(self._path, self._file):  # the folder was taken away, or the file
            replaced = self._path.open("a+b", buffering=0)
            if not os.fstat(replaced.fileno()).st_size:
                self._waiting = _whole_lines(self._file) + self._waiting
            self._file.close()
            self._file = replaced
        end = os.fstat(self._file.fileno()).st_size
        while self._waiting:
            line = self._waiting[0]
            try:
                done = self._file.write(line)
                if done != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self._file.truncate(end)
                raise
            end += len(line)
            del self._waiting[0]

    def sync(self) -> None:
        """Bring the lines to the disk, so that a checkpoint which outlives a power cut finds the lines before it."""
        if self._file is not None:
            with suppress(OSError):  # ``write`` has told it
                self._append()
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the files."""
        self.sync()
        if self._file is not None:
            self._file.close()
        if self._viewers is not None:
            self._viewers.close()


def _whole_lines(file: BinaryIO) -> list[bytes]:
    """The lines of a file that is open and has no name any more; none where its machine has let it go, as NFS may."""
    try:
        file.seek(0)
        return [line for line in file if line.endswith(b"\n")]
    except OSError:
        return []


def _same_file(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except OSError:
        return False


class IncidentLog:
    """Writes what went wrong, and in which rows, to ``output_dir/incidents.jsonl``, one JSON object a line; no file where nothing did."""

    def __init__(self, output_dir: Path | None, first_step: int, tell: Callable[[str], None] = print) -> None:
        """first_step, output_dir, tell: see ``RunLog``."""
        self._path = None if output_dir is None else output_dir / INCIDENTS_FILE
        self._tell, self._told = tell, False
        if self._path is not None and self._path.exists():
            kept = [line for line in _lines(self._path) if line.get("step", 0) <= first_step]
            write_bytes(self._path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept).encode())

    def write(self, values: dict[str, Any]) -> None:
        """Append one line. A number that is not finite becomes a text: JSON has none.

        A line that cannot be written, as on a full disk, is lost, which is told once: the checkpoint that may follow it matters more.
        """
        if self._path is None:
            return
        line = json.dumps(plain_numbers(values), ensure_ascii=False).encode() + b"\n"
        try:
            with self._path.open("ab", buffering=0) as file:
                end = file.tell()
                if file.write(line) != len(line):
                    file.truncate(end)  # no later line may stand behind half of this one
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not self._told:
                self._tell(f"note: {self._path} cannot be written: {error.strerror}; the run goes on without its incidents")
            self._told = True


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
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(found, dict):
                break
            lines.append(found)
    return lines
