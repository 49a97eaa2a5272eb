"""Quiet, deterministic runs on CPU, and what many tests want."""

import os

# One thread for each pytest process, and for the commands that tests start: several of them share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Messages are compared in English, whatever the developer's own language is.
os.environ["PADDLEALIGN_LANG"] = "en"
# Names of a hub are answered from caches that tests fill, and none waits for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from paddlealign.machine import prepare  # before any test imports Paddle

prepare()

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# The same examples in every run. HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("deterministic", derandomize=True, deadline=None, print_blob=False, database=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "deterministic"))


# These take minutes. They begin first, while there is work for the other processes beside them.
LONGEST = ("test_quickstart.py", "test_equality.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others in their order. xdist keeps it with ``--no-loadscope-reorder``."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


class CommandResult(NamedTuple):
    """What a finished command left: exit code, stdout and stderr."""

    code: int
    out: str
    err: str


def _run_command(
    args: Sequence[str | Path], cwd: Path = ROOT, timeout: float = 240, environment: Mapping[str, str] | None = None, stdin: str = ""
) -> CommandResult:
    """Run Python with ``args``: ``["sft_main.py", "args.json"]`` or ``["-m", "paddle.distributed.launch", ...]``.

    A script's name is taken from the repository whatever ``cwd`` is. ``environment`` is added to this process's. A command that takes
    longer than ``timeout`` seconds is ended with all its children, and the test fails with what it had said.
    """
    words = [str(word) for word in args]
    if words[0].endswith(".py"):
        words[0] = str(ROOT / words[0])
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # a group of its own, so that launched ranks can be ended with it
    )
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            pytest.fail(f"{' '.join(words)} took longer than {timeout} s.\nstdout:\n{out}\nstderr:\n{err}")
        raise
    return CommandResult(process.returncode, out, err)


@pytest.fixture(scope="session")
def run_command() -> Callable[..., CommandResult]:
    """Run one of the repository's scripts: ``code, out, err = run_command(["dpo_main.py", "--help"])``."""
    return _run_command


@pytest.fixture(scope="module", autouse=True)
def _no_pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """A tiny run's curves take longer to render than the run to train: runs in this process lay the panels out, and leave an empty file.

    Commands that tests start as processes draw, and so do the tests of a file with ``pytestmark = pytest.mark.pictures``.
    """
    if "paddlealign.recipes.entry" not in sys.modules or request.node.get_closest_marker("pictures"):
        yield  # nothing that trains was imported, or pictures are what is tested
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda _, path, **__: Path(path).write_bytes(b""))
        yield
