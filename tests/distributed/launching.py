"""Start real ranks on the CPU, and end them whatever happens."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# With --backend an older launcher is at work in Paddle than without.
GLOO = ("--backend", "gloo")


def run_ranks(script: Path | str, ranks: int, *args: object, timeout: float = 120) -> list[str]:
    """Run a Python file, or code, as so many ranks on this machine, and give what each wrote (stdout and stderr), in the ranks' order.

    args: words for the script. Raises AssertionError, with what every rank wrote, where one fails or all take longer than ``timeout``
    seconds. No process is left.
    """
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(script, str):
            path = Path(folder) / "ranks.py"
            path.write_text(script, encoding="utf-8")
        else:
            path = script
        words = [str(word) for word in args]
        code, screen = launch([str(path.resolve()), *words], ranks, Path(folder), timeout)
        files = [Path(folder) / f"workerlog.{rank}" for rank in range(ranks)]
        texts = [file.read_text(encoding="utf-8", errors="replace") if file.exists() else "" for file in files]
    if code != 0:
        told = "\n".join(f"--- rank {rank}:\n{text}" for rank, text in enumerate(texts))
        what = f"took longer than {timeout} s" if code is None else f"ended with {code}"
        raise AssertionError(f"{path.name} on {ranks} ranks {what}\n{told}\n--- screen:\n{screen}")
    return texts


def launch(words: list[str], ranks: int, log_dir: Path, timeout: float, options: Sequence[str] = GLOO) -> tuple[int | None, str]:
    """Run ``words`` (a script and its arguments) under Paddle's launcher. Gives its exit code, None after ``timeout``, and its screen."""
    process = start_launcher(words, ranks, log_dir, options)
    try:
        screen, _ = process.communicate(timeout=timeout)
        return process.returncode, screen
    except subprocess.TimeoutExpired:
        return None, end(process)
    except BaseException:
        end(process)
        raise


def start_launcher(words: list[str], ranks: int, log_dir: Path, options: Sequence[str] = GLOO) -> subprocess.Popen[str]:
    """Start Paddle's launcher and leave it running; stdout and stderr are one. Each rank has one thread."""
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks), "--log_dir", str(log_dir), *options]
    quiet = {"GLOG_v": "0", "GLOG_minloglevel": "2", "PYTHONWARNINGS": "ignore:No ccache found:UserWarning"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **quiet}
    return subprocess.Popen(
        [*command, *words],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> str:
    """End a launcher and its ranks, each by its process group, and give what the screen had shown."""
    for group in [process.pid, *children(process.pid)]:  # the launcher gives every rank a group of its own
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    screen, _ = process.communicate()
    return screen


def children(parent: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = re.sub(r"\(.*\)", "", status.read_text(encoding="utf-8", errors="replace")).split()
        except OSError:  # it has just ended
            continue
        if fields[2] == str(parent) and fields[1] != "Z":
            found.append(int(fields[0]))
    return found
