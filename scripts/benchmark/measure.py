"""One measured run of a system: when its steps ended, the processor time they took, peak memory, and what else the machine was doing.

All systems are timed alike and from outside: each appends a line to a file when a step is done, and the moment at which the line is there
counts. The time of a step is then all of it: rows, forward, backward, optimizer, and the log's own line.
"""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.05
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """A run. ends: for each step the second at which it was done. cpu: seconds of processor time that all its processes had taken by then.

    lines: what the system logged of each step. peak: bytes, the highest resident memory of each process added up. other_load: share of
    the machine's processors that others had during the run.
    """

    ends: list[float]
    cpu: list[float]
    lines: list[dict[str, Any]]
    peak: int
    other_load: float


def measure(words: Sequence[str], environ: Mapping[str, str], folder: Path, log: Path, output: Path, limit: float) -> Measured:
    """Run a command in ``folder`` to its end. log: the file that it appends a line to for each step. output: where its own words go.

    limit: seconds. Raises RuntimeError with the last of these words where the command fails, and TimeoutError past the limit.
    """
    log.unlink(missing_ok=True)
    ends, used, peaks = [], [], {}
    began, busy = time.perf_counter(), _busy_seconds()
    with output.open("w") as file:
        child = subprocess.Popen(words, cwd=folder, env=dict(environ), stdout=file, stderr=subprocess.STDOUT)
        cpu = 0.0
        while child.poll() is None:
            tree = _tree(child.pid)
            peaks |= {pid: max(peak, peaks.get(pid, 0)) for pid in tree if (peak := _peak(pid))}
            cpu = max(cpu, sum(map(_cpu_seconds, tree)))
            now = time.perf_counter() - began
            new = _count_lines(log) - len(ends)
            ends, used = ends + [now] * new, used + [cpu] * new
            if now > limit:
                for pid in reversed(tree):
                    os.kill(pid, 15)
                child.wait()
                raise TimeoutError(f"{' '.join(words)}: not done after {limit:.0f} s")
            time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - began
    if child.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit code {child.returncode}\n{output.read_text()[-3000:]}")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    last = len(lines) - len(ends)  # written since the last look
    ends, used = ends + [seconds] * last, used + [cpu] * last
    others = (_busy_seconds() - busy - cpu) / (seconds * (os.cpu_count() or 1))
    return Measured(ends, used, lines, sum(peaks.values()), round(max(0.0, others), 3))


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _tree(pid: int) -> list[int]:
    """A process and those below it."""
    found = [pid]
    for one in found:
        try:
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:  # it has ended
            continue
    return found


def _peak(pid: int) -> int:
    """The highest resident memory so far in bytes; 0 when the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


def _busy_seconds() -> float:
    """What all processors of the machine have worked, and what a hypervisor took from them, since it started."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS
