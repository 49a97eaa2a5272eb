"""The tour as a user starts it, on few rows: every step runs, and what it promises is there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paddlealign.recipes.tour_steps import QUESTIONS, steps_of
from tests.pages import ROOT
from tests.small_home import make_home


def test_the_whole_tour(tmp_path: Path):
    home = make_home(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "paddlealign.tour", "--steps", "1"],
        cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    said, steps = done.stdout, steps_of("output/tour", 1)
    for number, step in enumerate(steps, 1):
        assert f"== Step {number} of {len(steps)}: {step.title} " in said
        assert f"\n    {step.line}\n" in said
        assert all((home / path).exists() for path in step.makes)
    for told in ("check passed", "rewards/margins: 0.000", "        after DPO: ", "win rate of A", "written: output/tour/both.html"):
        assert told in said
    assert all(f"you> {question}\nmodel> " in said for question in QUESTIONS)
    files = said.split("Files to look at:\n")[1].split("To read next:")[0].splitlines()
    pages = said.split("To read next:\n")[1].splitlines()
    assert files and all((home / line.strip().split(": ")[0]).exists() for line in files)
    assert pages and all((ROOT / line.strip().split(": ")[0]).is_file() for line in pages)
    assert {path.name for path in (home / "output").iterdir()} == {"tour"}


@pytest.mark.parametrize("to_all", [False, True])
def test_a_sigterm_ends_the_tour_and_its_command_quietly(tmp_path: Path, to_all: bool):
    """To the tour alone, and to all of its group, as ``timeout`` sends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "paddlealign.tour"],
        cwd=make_home(tmp_path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("train: "):  # said by the command, behind Paddle's import
            break
    (command,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGTERM)
    said, told = process.communicate(timeout=60)
    assert process.returncode == 130 and told == "\nThe tour was stopped; the same command goes on with this step.\n"
    assert "C++" not in said and not Path(f"/proc/{command}").exists()
