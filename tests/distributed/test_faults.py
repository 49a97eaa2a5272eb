"""Where one rank fails, all end: its error is the last thing on the screen and in errors.txt, and no process is left."""

import os
import signal
import time
from pathlib import Path

import pytest

from paddlealign.parallel.faults import ERROR_FILE, STOPPED, cause
from tests.distributed.launching import GLOO, ROOT, end, launch, start_launcher

SCRIPT = str(Path(__file__).with_name("ranks_faults.py"))
# 30 s from the fault to the end, which is what is promised, and as much for the start of Python and Paddle on a busy machine.
LIMIT = 60


def processes_of(folder: Path) -> list[int]:
    """The processes that have the folder's name among their arguments."""
    found = []
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in words.read_bytes():
                found.append(int(words.parent.name))
        except OSError:  # it has just ended
            continue
    return found


def wait_until(holds, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"nothing after {seconds} s"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("what", "whom", "options", "last"),
    [
        ("raise", 1, GLOO, ["ValueError: an invented fault"]),
        ("raise", 0, (), ["ValueError: an invented fault"]),
        ("refuse", 1, (), ["error on rank 1: an invented key: 5 is not allowed"]),
        ("kill", 0, GLOO, ["error: rank 0 was killed, or", "at work"]),
        ("kill", 1, (), ["error: rank 1 was killed, or", "at work"]),
        ("abort", 1, (), ["error: rank 1 was killed, or", "FatalError: `Process abort signal` is detected", "SIGABRT"]),
    ],
)
def test_the_error_of_the_rank_that_failed_ends_the_run(tmp_path, what, whom, options, last):
    folder = tmp_path / "output"
    code, screen = launch([SCRIPT, str(folder), what, str(whom)], 2, tmp_path / "log", LIMIT, options)
    assert code not in (0, None), screen
    told = (folder / ERROR_FILE).read_text(encoding="utf-8")
    assert told.startswith(f"error on rank {whom}: " if what in ("raise", "refuse") else last[0])
    assert screen.rstrip().endswith(told.rstrip())
    for text in last:
        assert text in told
    assert processes_of(folder) == []


def test_a_run_that_ends_well_takes_an_old_error_away_and_says_nothing(tmp_path):
    (tmp_path / ERROR_FILE).write_text("of an earlier run", encoding="utf-8")
    code, screen = launch([SCRIPT, str(tmp_path), "finish", "0"], 2, tmp_path / "log", LIMIT)
    assert code == 0 and "error" not in screen
    assert not (tmp_path / ERROR_FILE).exists()


@pytest.mark.parametrize("options", [GLOO, ()])
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_no_rank_is_left_when_the_launcher_is_stopped_or_killed(tmp_path, options, sign):
    folder = tmp_path / "output"
    process = start_launcher([SCRIPT, str(folder), "none", "0"], 2, tmp_path / "log", options)
    try:
        logs = [tmp_path / "log" / f"workerlog.{rank}" for rank in range(2)]
        wait_until(lambda: all(log.exists() and "at work" in log.read_text(encoding="utf-8") for log in logs), LIMIT)
        os.kill(process.pid, sign)  # Ctrl-C reaches the launcher alone: its ranks have sessions of their own
        screen, _ = process.communicate(timeout=LIMIT)
    finally:
        end(process)
    wait_until(lambda: processes_of(folder) == [], 10)
    assert sign == signal.SIGKILL or screen.rstrip().endswith(STOPPED)
    assert not (folder / ERROR_FILE).exists()


def test_a_mistake_in_the_arguments_is_the_last_thing_said(tmp_path):
    words = [str(ROOT / "dpo_main.py"), "--model_name_or_path", "m", "--output_dir", str(tmp_path / "o"), "--do_train", "--sead", "1"]
    code, screen = launch(words, 2, tmp_path / "log", LIMIT, ())
    assert code not in (0, None)
    assert "Did you mean seed?" in screen.rstrip().splitlines()[-1]


def test_the_help_is_shown_once(tmp_path):
    code, screen = launch([str(ROOT / "dpo_main.py"), "--help"], 2, tmp_path / "log", LIMIT, ())
    assert code == 0 and screen.count("usage:") == 1
    assert (tmp_path / "log" / "workerlog.1").read_text(encoding="utf-8") == ""


def event(kind: str, rank: int) -> dict:
    return {"event": kind, "rank": rank}


@pytest.mark.parametrize(
    ("events", "rank"),
    [
        ([("failed", 3)], 3),
        ([("failed", 3), ("failed", 1)], 3),
        ([("failed", 3), ("gone", 1), ("failed", 0)], 1),
        ([("gone", 2), ("failed", 1)], 2),
        ([("gone", 2), ("stopped", 1)], 2),
        ([("stopped", 1), ("gone", 2), ("failed", 0)], 1),
        ([("finished", 0), ("failed", 1)], 1),
    ],
)
def test_what_brought_the_rest_about(events, rank):
    assert cause([event(*it) for it in events])["rank"] == rank
