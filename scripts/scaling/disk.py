"""How fast a model is read and saved, beside plain reads and writes of the same bytes. Started by its path it does that, in its process."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from scripts.measure.loading import ROOT, SHAPE, make

BLOCK = 1 << 24


def forget(path: Path) -> None:
    """Let the system drop what it holds of a file, so that the next read comes from the disk."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def plain_read(path: Path) -> None:
    """Read a file in blocks."""
    block = bytearray(BLOCK)
    with path.open("rb", buffering=0) as file:
        while file.readinto(block):
            pass


def plain_write(path: Path, size: int) -> None:
    """Write so many bytes in blocks and bring them to the disk."""
    block = os.urandom(BLOCK)
    with path.open("wb", buffering=0) as file:
        for at in range(0, size, BLOCK):
            file.write(block[: min(BLOCK, size - at)])
        os.fsync(file.fileno())


def clock(do: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def measure(folder: Path, dtype: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, in turn, round after round."""
    from paddlealign.machine import prepare

    prepare()
    from paddlealign.models.weights import load_model, save_model

    weights, copy, plain = folder / "model.safetensors", folder / "copy", folder / "plain"
    model = load_model(folder, dtype)
    ways: dict[str, tuple[Path | None, Callable[[], object]]] = {
        "read from the disk": (weights, lambda: plain_read(weights)),
        "loaded from the disk": (weights, lambda: load_model(folder, dtype)),
        "read from memory": (None, lambda: plain_read(weights)),
        "loaded from memory": (None, lambda: load_model(folder, dtype)),
        "written": (None, lambda: plain_write(plain, weights.stat().st_size)),
        "saved": (None, lambda: save_model(model.state_dict().__getitem__, model.config, copy, {}, dtype)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (forgotten, do) in ways.items():
            if forgotten:
                forget(forgotten)
            seconds[name].append(clock(do))
            plain.unlink(missing_ok=True)
            shutil.rmtree(copy, ignore_errors=True)
    return seconds


def disk_table(folder: Path, rounds: int, quick: bool) -> str:
    """GB/s of each way, of a model in float32 and of one in bfloat16."""
    lines = ["| weights | way | GB/s | from | to | beside plain |", "|---|---|---:|---:|---:|---:|"]
    shape = {**SHAPE, "hidden_size": 256, "intermediate_size": 512} if quick else SHAPE
    for dtype, layers in (("float32", 2 if quick else 9), ("bfloat16", 2 if quick else 20)):
        model = folder / f"{dtype}-{layers}"
        if not (model / "config.json").exists():
            make(model, shape, layers, dtype, 1 << 40)
        words = [sys.executable, str(Path(__file__)), str(model), dtype, str(rounds)]
        done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        size = (model / "model.safetensors").stat().st_size
        lines += disk_lines(f"{dtype}, {size / 1e9:.2f} GB", size, json.loads(done.stdout.splitlines()[-1]))
    return "\n".join(lines)


def disk_lines(title: str, size: int, seconds: dict[str, list[float]]) -> Sequence[str]:
    """A row for each way; each second one is ours and stands beside the plain one before it, round by round."""
    lines, names = [], list(seconds)
    for number, name in enumerate(names):
        rates = [size / it / 1e9 for it in seconds[name]]
        plain = seconds[names[number - number % 2]]
        share = median(a / b for a, b in zip(plain, seconds[name], strict=True))
        told = [title, name, *(f"{it:.2f}" for it in (median(rates), min(rates), max(rates))), f"{share:.0%}" if number % 2 else ""]
        lines.append(f"| {' | '.join(told)} |")
    return lines


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
