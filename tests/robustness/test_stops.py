"""A machine that is taken away: SIGTERM at any time ends with a code to start again on, within the seconds that there are."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paddlealign.parallel.stopping import RESTART_CODE, STOPPED_EARLY, StopRequest, stopped_late
from paddlealign.recipes import run
from paddlealign.recipes.entry import main
from paddlealign.training.manifest import find_damage
from paddlealign.training.run_folder import list_checkpoints
from paddlealign.training.run_log import read_metrics
from tests.distributed.launching import children, end, start_launcher
from tests.distributed.test_faults import LIMIT, processes_of, wait_until
from tests.small_runs import ROOT, character_checkpoint

Words = Callable[..., list[str]]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Words:
    """The command line of a run of 4 steps that evaluates and lets the policy answer at every second one."""
    model = character_checkpoint(tmp_path_factory.mktemp("model") / "model")
    rows = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows.write_text("".join(json.dumps({"src": f"question {n}", "tgt": f"answer {n}"}) + "\n" for n in range(8)))
    keys = ["--model_name_or_path", model, "--train_dataset_path", rows, "--dev_dataset_path", rows, "--do_train", "--do_eval"]
    keys += ["--max_length", 64, "--max_steps", 4, "--logging_steps", 1, "--learning_rate", "1e-3", "--chat_template", "none"]
    keys += ["--evaluation_strategy", "steps", "--eval_steps", 2, "--per_device_eval_batch_size", 4, "--disable_tqdm", "true"]
    keys += ["--sample_during_eval", "true", "--n_eval_model_samples", 1, "--sample_max_length", 3, "--save_strategy", "no"]
    return lambda output, *more: [str(word) for word in (*keys, "--output_dir", output, *more)]


def numbers(output: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if "per_second" not in name and name != "memory_gib"} for line in read_metrics(output)
    ]


def test_an_evaluation_that_is_left_is_done_by_the_resume(words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Asked before an evaluation, between its batches and after it: the run log and the model are those of a run that was not stopped."""
    straight = tmp_path / "straight"
    assert main("sft", words(straight)) == 0
    kinds = [name for line in numbers(straight) for name in line if name in ("loss", "eval_loss", "samples/length")]
    assert kinds == ["samples/length", "loss", "loss", "eval_loss", "samples/length", "loss", "loss", "eval_loss", "samples/length"]
    for nth, step, owes in ((1, 1, False), (2, 2, True), (4, 2, True), (5, 2, False), (9, 4, True)):
        output, calls = tmp_path / f"stopped{nth}", iter(range(1, 99))
        with monkeypatch.context() as patch:
            patch.setattr(run, "stop_code", lambda *_, calls=calls, nth=nth: RESTART_CODE if next(calls) == nth else 0)
            assert main("sft", words(output, "--save_on_stop", "true")) == RESTART_CODE
        ((saved, folder),) = list_checkpoints(output)
        assert (saved, json.loads((folder / "trainer_state.json").read_text())["owes"]) == (step, owes)
        assert not (output / ".lock").exists()
        assert main("sft", words(output, "--resume_from_checkpoint", "true")) == 0
        assert numbers(output) == numbers(straight), nth
        assert (output / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()


def test_a_resume_that_is_stopped_before_it_evaluates_still_owes_it(words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    output = tmp_path / "output"
    for first, more in ((2, []), (1, ["--resume_from_checkpoint", "true"])):
        calls = iter(range(1, 99))
        with monkeypatch.context() as patch:
            patch.setattr(run, "stop_code", lambda *_, calls=calls, first=first: RESTART_CODE if next(calls) == first else 0)
            assert main("sft", words(output, "--save_on_stop", "true", *more)) == RESTART_CODE
        assert [step for step, _ in list_checkpoints(output)] == [2] and find_damage(output / "checkpoint-2") == []
    assert main("sft", words(output, "--resume_from_checkpoint", "true")) == 0
    assert [line["step"] for line in numbers(output) if "eval_loss" in line] == [2, 4]


def test_a_finished_run_without_a_checkpoint_is_not_trained_again(words: Words, tmp_path: Path, capsys: pytest.CaptureFixture):
    """Unless it is longer now, its model is gone, or run.json does not say that it is finished: a kill may have come before that."""
    output = tmp_path / "output"
    assert main("sft", words(output)) == 0
    left = {path: path.read_bytes() for path in (output / "run.json", output / "metrics.jsonl", output / "model.safetensors")}
    (output / "report.html").unlink()
    for wish in ("true", "auto"):
        capsys.readouterr()
        assert main("sft", words(output, "--resume_from_checkpoint", wish)) == 0
        told = capsys.readouterr().out
        assert "finished, and its model; there is nothing to do" in told and "first step" not in told
        assert {path: path.read_bytes() for path in left} == left
    assert (output / "report.html").is_file()  # the one thing that comes behind run.json
    assert main("sft", words(output, "--resume_from_checkpoint", "auto", "--check", "true")) == 0
    assert "a start would do nothing" in capsys.readouterr().out
    straight = numbers(output)
    for change in (lambda: edit(output / "run.json", finished=False), lambda: (output / "model.safetensors").unlink()):
        change()
        assert main("sft", words(output, "--resume_from_checkpoint", "auto")) == 0
        assert "holds no checkpoint yet; this starts at the first step" in capsys.readouterr().out
        assert numbers(output) == straight and (output / "model.safetensors").read_bytes() == left[output / "model.safetensors"]
    assert main("sft", words(output, "--resume_from_checkpoint", "auto", "--max_steps", "5")) == 0
    assert [line["step"] for line in numbers(output) if "loss" in line] == [1, 2, 3, 4, 5]
    assert main("sft", words(output, "--resume_from_checkpoint", "auto", "--max_steps", "5", "--learning_rate", "0.5")) == 1
    assert "was made under other arguments" in capsys.readouterr().err


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_preempt_save_seconds_sets_save_on_stop(words: Words, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main("sft", words(tmp_path / "out", "--preempt_save_seconds", "30", "--save_on_stop", "false", "--check", "true")) == 1
    assert "preempt_save_seconds asks for a checkpoint at SIGTERM, save_on_stop false for none" in capsys.readouterr().err
    before = signal.getsignal(signal.SIGTERM)
    assert main("sft", words(tmp_path / "out", "--preempt_save_seconds", "30", "--max_steps", "1")) == 0
    told = json.loads((tmp_path / "out" / "run.json").read_text())["arguments"]["training"]["save_on_stop"]
    assert told["value"] is True and signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("number", "seconds", "left"), [(signal.SIGTERM, 0.05, True), (signal.SIGTERM, None, False), (signal.SIGINT, 0.05, False)]
)
def test_the_seconds_count_from_sigterm_on(number: int, seconds: float | None, left: bool):
    ended: list[tuple[str, int]] = []
    request = StopRequest(watched=True, seconds=seconds, leave=lambda text, code: ended.append((text, code)))
    with request.heed(True):
        request.note(number, launched=False)
        time.sleep(0.3)
    assert ended == ([(stopped_late(0.05), RESTART_CODE)] if left else [])


def test_a_save_in_time_lets_the_seconds_go():
    ended: list[int] = []
    request = StopRequest(watched=True, seconds=0.2, leave=lambda _, code: ended.append(code))
    with request.heed(True):
        request.note(signal.SIGTERM, launched=False)
    time.sleep(0.4)
    assert ended == []


SLOW = """
import sys, time
from paddlealign.machine import prepare
prepare()
from paddlealign.models import tensor_files
from paddlealign.training import checkpoint
write = checkpoint.write_streamed
def slow(path, *more):
    if "checkpoint-1." not in str(path):
        print("writing", path, flush=True)
        time.sleep(60)
    return write(path, *more)
checkpoint.write_streamed = slow
from paddlealign.recipes.entry import main
sys.exit(main("sft", sys.argv[1:]))
"""


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], start: str) -> None:
    assert process.stdout
    for line in process.stdout:
        if line.startswith(start):
            return
    pytest.fail(f"no line {start}: {process.communicate()}")


def test_a_save_that_takes_too_long_is_left_with_the_last_checkpoint_intact(words: Words, tmp_path: Path):
    output = tmp_path / "output"
    save = ["--save_strategy", "steps", "--save_steps", "1", "--preempt_save_seconds", "1"]
    with started([sys.executable, "-c", SLOW, *words(output, *save)]) as process:
        read_until(process, "writing")
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert 0.5 < time.monotonic() - began < 25  # not the minute that the save takes
    assert process.returncode == RESTART_CODE and err.strip() == stopped_late(1)
    ((step, folder),) = list_checkpoints(output)
    assert step == 1 and find_damage(folder) == [] and (output / "checkpoint-2.partial").is_dir()
    assert main("sft", words(output, *save, "--resume_from_checkpoint", "auto")) == 0
    assert not list(output.glob("*.partial")) and [line["step"] for line in numbers(output) if "loss" in line] == [1, 2, 3, 4]


def test_sigterm_before_the_first_step_ends_with_the_same_code(words: Words, tmp_path: Path):
    output = tmp_path / "output"
    command = [sys.executable, str(ROOT / "sft_main.py"), *words(output, "--save_on_stop", "true")]
    with started(command) as process:
        read_until(process, "machine: ")  # Paddle is being imported
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip()) == (RESTART_CODE, STOPPED_EARLY)


def test_several_processes_end_in_time(tmp_path: Path):
    """They save for minutes; the seconds are over after one."""
    script = str(ROOT / "tests" / "distributed" / "ranks_faults.py")
    process = start_launcher([script, str(tmp_path), "save", "300", "1"], 2, tmp_path / "log", ())
    try:
        logs = [tmp_path / "log" / f"workerlog.{rank}" for rank in range(2)]
        wait_until(lambda: all(log.exists() and "at work" in log.read_text(encoding="utf-8") for log in logs), LIMIT)
        os.kill(sorted(children(process.pid))[1], signal.SIGTERM)
        screen, _ = process.communicate(timeout=LIMIT)
    finally:
        end(process)
    assert process.returncode == RESTART_CODE and screen.rstrip().endswith(stopped_late(1)), screen
    assert processes_of(tmp_path) == [] and not list(tmp_path.glob("saved*"))
