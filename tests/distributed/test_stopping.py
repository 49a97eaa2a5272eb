"""A run that is asked to stop leaves a checkpoint, and trains from there what it would have; two machines train what one process does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paddlealign.parallel import stopping
from paddlealign.parallel.faults import STOPPED
from paddlealign.parallel.stopping import HEEDED, StopRequest
from paddlealign.recipes.entry import main
from paddlealign.training.run_folder import list_checkpoints
from paddlealign.training.run_log import read_metrics
from tests.distributed.launching import children, end, launch, start_launcher
from tests.distributed.test_faults import LIMIT, processes_of, wait_until
from tests.small_runs import ROOT, make_checkpoint, write_rows

STEPS = 45
SAMPLED = ["--sample_max_length", "6", "--sample_temperature", "1.0"]
SAYS = "which is saved; go on with --resume_from_checkpoint true"
SFT = str(ROOT / "sft_main.py")
Keys = Callable[..., list[str]]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The command line of a run of STEPS steps of 4 rows, in a folder, for so many processes."""
    model = make_checkpoint(tmp_path_factory.mktemp("model"))
    rows = write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", "sft", "train", 0, 11)

    def words(output: Path, processes: int, *more: str) -> list[str]:
        found = ["--model_name_or_path", str(model), "--train_dataset_path", str(rows), "--output_dir", str(output), "--do_train"]
        found += ["--max_length", "256", "--src_length", "128", "--learning_rate", "1e-3", "--lr_scheduler_type", "cosine"]
        found += ["--max_steps", str(STEPS), "--logging_steps", "3", "--save_strategy", "no", "--disable_tqdm", "true"]
        accumulation = str(2 // processes)
        return [*found, "--per_device_train_batch_size", "2", "--gradient_accumulation_steps", accumulation, *more]

    return words


def stop_words(keys: Keys, output: Path, processes: int) -> list[str]:
    """A run that stops with a checkpoint, and goes on from one where there is one."""
    resumes = ["--resume_from_checkpoint", "true"] if output.exists() else []
    return keys(output, processes, "--save_on_stop", "true", *resumes)


def numbers(output: Path) -> list[dict[str, Any]]:
    """The run log's training lines without what a clock decides."""
    return [
        {key: value for key, value in line.items() if "per_second" not in key and key != "memory_gib"}
        for line in read_metrics(output)
        if "loss" in line
    ]


def wait_for_line(output: Path, process: subprocess.Popen[str]) -> None:
    """Until the run log has another line."""
    had = len(read_metrics(output)) if (output / "metrics.jsonl").exists() else 0
    wait_until(lambda: process.poll() is not None or ((output / "metrics.jsonl").exists() and len(read_metrics(output)) > had), LIMIT)
    assert process.poll() is None, process.communicate()


def assert_whole(output: Path, straight: Path) -> None:
    """The same run log, and the same bytes in the model."""
    assert numbers(output) == numbers(straight) and len(numbers(output)) == STEPS // 3
    assert (output / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def alone(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process's run, straight through."""
    output = tmp_path_factory.mktemp("alone") / "output"
    assert main("sft", keys(output, 1)) == 0
    return output


def test_one_process_stops_goes_on_and_ends_where_it_would_have(keys: Keys, alone: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    done = 0
    for sign, code in ((signal.SIGINT, 130), (signal.SIGTERM, 75)):
        command = [sys.executable, SFT, *stop_words(keys, output, 1)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            wait_for_line(output, process)
            process.send_signal(sign)
            out, err = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
        (step, _), *_ = reversed(list_checkpoints(output))
        assert (process.returncode, err) == (code, f"stopped after step {step} of {STEPS}, {SAYS}\n")
        assert HEEDED in out and done < step < STEPS
        assert not (output / "model.safetensors").exists()
        done = step
    assert main("sft", stop_words(keys, output, 1)) == 0
    assert_whole(output, alone)


def free_port() -> int:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return holder.getsockname()[1]


@pytest.fixture(scope="module")
def machines(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two launchers that find each other, as on two machines, one process each: a run straight through, with answers before and after."""
    folder = tmp_path_factory.mktemp("machines")
    port = free_port()
    words = keys(folder / "output", 2)
    words += ["--sample_during_eval", "true", "--sample_data_file", words[3], "--n_eval_model_samples", "3", *SAMPLED]
    launchers = []
    for rank in range(2):
        options = ["--nnodes", "2", "--master", f"127.0.0.1:{port}", "--rank", str(rank)]
        launchers.append(start_launcher([SFT, *words], 1, folder / f"log{rank}", options))
    try:
        screens = [launcher.communicate(timeout=2 * LIMIT)[0] for launcher in launchers]
    finally:
        for launcher in launchers:
            end(launcher)
    assert [launcher.returncode for launcher in launchers] == [0, 0], "\n".join(screens)
    assert f"\nstep {STEPS}/{STEPS} " in screens[0] and "\nstep " not in screens[1]  # the first process alone speaks
    return folder / "output"


def test_two_machines_train_what_one_process_trains(machines: Path, alone: Path) -> None:
    found, expected = numbers(machines), numbers(alone)
    assert [line["step"] for line in found] == [line["step"] for line in expected] == list(range(3, STEPS + 1, 3))
    for name in ("loss", "accuracy", "grad_norm", "tokens", "examples"):
        assert [line[name] for line in found] == pytest.approx([line[name] for line in expected], rel=1e-4), name
    assert found[-1]["loss"] < found[0]["loss"] - 0.5


def test_two_machines_answer_what_the_saved_model_answers(keys: Keys, machines: Path, tmp_path: Path) -> None:
    """The two take turns in the prompts, and the first writes all."""
    written = [json.loads(line) for line in (machines / "samples" / f"step-{STEPS}.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = keys(tmp_path, 1)[3]
    words = ["--model_name_or_path", machines, "--data_file", rows, "--output_file", tmp_path / "out.jsonl", "--dtype", "float32"]
    assert main("predict", [str(word) for word in (*words, "--top_p", "1.0", "--temperature", "1.0", "--max_length", "6")]) == 0
    predicted = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["prompt"], row["response"]) for row in written] == [(row["src"], row["output"]) for row in predicted[:3]]
    assert len({row["response"] for row in written}) == 3
    assert [line["step"] for line in read_metrics(machines) if "samples/length" in line] == [0, STEPS]


def test_ctrl_c_at_the_launcher_leaves_a_checkpoint(keys: Keys, machines: Path, tmp_path: Path) -> None:
    """From there the run ends bit for bit as the one that was not stopped."""
    output = tmp_path / "output"
    process = start_launcher([SFT, *stop_words(keys, output, 2)], 2, tmp_path / "log", ())
    try:
        wait_for_line(output, process)
        process.send_signal(signal.SIGINT)
        screen, _ = process.communicate(timeout=LIMIT)
    finally:
        end(process)
    ((step, _),) = list_checkpoints(output)
    assert HEEDED in screen and screen.rstrip().endswith(f"stopped after step {step} of {STEPS}, {SAYS}"), screen
    assert process.returncode == signal.SIGINT  # the launcher's own
    assert processes_of(output) == []
    assert not list(output.glob("*.partial")) and not (output / "errors.txt").exists()
    code, screen = launch([SFT, *stop_words(keys, output, 2)], 2, tmp_path / "log", LIMIT, ())
    assert code == 0, screen
    assert_whole(output, machines)


SAVING = Path(__file__).with_name("ranks_faults.py")


@contextmanager
def saving(folder: Path, seconds: int, ask: Callable[[subprocess.Popen[str]], None]) -> Iterator[subprocess.Popen[str]]:
    """Ranks that were asked to stop, and that now save for so long."""
    process = start_launcher([str(SAVING), str(folder), "save", str(seconds)], 2, folder / "log", ())
    try:
        logs = [folder / "log" / f"workerlog.{rank}" for rank in range(2)]
        at_work = lambda: all(log.exists() and "at work" in log.read_text(encoding="utf-8") for log in logs)  # noqa: E731
        wait_until(lambda: at_work() or process.poll() is not None, LIMIT)
        assert process.poll() is None, process.communicate()  # a start that failed says why
        ask(process)
        wait_until(lambda: all("saving" in log.read_text(encoding="utf-8") for log in logs), LIMIT)
        yield process
    finally:
        end(process)


def ask_the_second(process: subprocess.Popen[str]) -> None:
    os.kill(sorted(children(process.pid))[1], signal.SIGTERM)


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def test_a_process_that_is_asked_stops_all(tmp_path: Path) -> None:
    with saving(tmp_path, 0, ask_the_second) as process:
        screen, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 143 and screen.rstrip().endswith("saved by all") and HEEDED in screen


def test_a_save_outlives_the_launcher_and_leaves_no_process(tmp_path: Path) -> None:
    with saving(tmp_path, 4, press_ctrl_c) as process:
        process.kill()
        process.wait()
        time.sleep(1)
        assert len(processes_of(tmp_path)) == 2 and not list(tmp_path.glob("saved*"))
        wait_until(lambda: len(list(tmp_path.glob("saved*"))) == 2, LIMIT)
        wait_until(lambda: processes_of(tmp_path) == [], 10)
        assert process.communicate(timeout=10)[0].rstrip().endswith("saved by all")


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    with saving(tmp_path, 300, press_ctrl_c) as process:
        time.sleep(stopping._REPEATING_SECONDS)
        press_ctrl_c(process)
        screen, _ = process.communicate(timeout=20)
        assert screen.rstrip().endswith(STOPPED)
        assert processes_of(tmp_path) == [] and not list(tmp_path.glob("saved*"))


@pytest.mark.parametrize(
    ("number", "times", "launched", "at_once"),
    [
        (signal.SIGTERM, [0, 0.2, 0.4, 1.0], True, [False, False, False, False]),  # the launcher repeats itself
        (signal.SIGTERM, [0, 5], True, [False, True]),  # a second Ctrl-C at the launcher
        (signal.SIGTERM, [0, 30.2, 30.4], True, [False, False, False]),  # the launcher, before it kills
        (signal.SIGTERM, [0, 31], False, [False, True]),  # the user, as the launcher is gone
        (signal.SIGINT, [0, 0.3], False, [False, True]),
    ],
)
def test_which_signal_asks_to_end_at_once(
    number: int, times: list[float], launched: bool, at_once: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = StopRequest(watched=False)
    found = []
    for moment in times:
        monkeypatch.setattr(stopping.time, "monotonic", lambda moment=moment: 100.0 + moment)
        found.append(request.note(number, launched))
    assert found == at_once and request.numbers == {number}


def test_the_launchers_signals_after_one_from_another_process_are_its_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many processes the last gets them seconds later than the first, which the others have heard of by then."""
    request = StopRequest(watched=True)
    monkeypatch.setattr(stopping.signal, "raise_signal", lambda number: request.note(number, True))
    found = []
    for moment in (0.5, 4.2, 4.4, 4.6, 9.0):
        monkeypatch.setattr(stopping.time, "monotonic", lambda moment=moment: 100.0 + moment)
        found.append(request.note(signal.SIGTERM, True) if moment > 1 else request.join_in())
    assert found == [None, False, False, False, True]


def test_check_tells_the_same_first_loss_in_one_process_and_in_two(keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main("sft", keys(tmp_path / "output", 1, "--check", "true")) == 0
    alone = capsys.readouterr().out.splitlines()
    layout = ["--check", "true", "--tensor_parallel_degree", "2", "--gradient_accumulation_steps", "2"]
    code, screen = launch([SFT, *keys(tmp_path / "output", 2, *layout)], 2, tmp_path / "log", LIMIT, ())
    assert code == 0 and not (tmp_path / "output").exists(), screen
    told = (tmp_path / "log" / "workerlog.0").read_text(encoding="utf-8").splitlines()
    for beginning in ("steps: ", "padding: ", "first micro-batch: "):
        (one,), (two,) = ([line for line in lines if line.startswith(beginning)] for lines in (alone, told))
        assert one == two
    (one,), (two,) = ([line for line in lines if line.startswith("memory, estimated")] for lines in (alone, told))
    assert "in the fullest of 2 processes" in two
    sizes = [float(line.split(" M parameters")[0].rsplit("(", 1)[1]) for line in (one, two)]
    assert 0.5 * sizes[0] <= sizes[1] < 0.7 * sizes[0]
    assert told[-1] == alone[-1] == "check passed"
    assert (tmp_path / "log" / "workerlog.1").read_text(encoding="utf-8") == ""


def test_an_error_of_an_earlier_run_goes_when_one_process_ends_well(keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "errors.txt").write_text("of an earlier run", encoding="utf-8")
    assert main("sft", keys(tmp_path, 1, "--check", "true")) == 0
    assert (tmp_path / "errors.txt").exists()
    assert main("sft", keys(tmp_path, 1, "--max_steps", "1")) == 0
    assert not (tmp_path / "errors.txt").exists()
