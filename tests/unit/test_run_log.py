"""metrics.jsonl: whole lines, cut back where a run goes on from an earlier checkpoint."""

import json
import math
import resource
import signal
import tracemalloc
from pathlib import Path

import pytest

from paddlealign.arguments.paths import RUN_FILE
from paddlealign.report.curve_statistics import Curves
from paddlealign.report.run_files import read_run
from paddlealign.training.run_log import METRICS_FILE, IncidentLog, RunLog, read_incidents, read_metrics


def write(folder: Path, first_step: int, steps: range) -> None:
    log = RunLog(folder, first_step)
    for step in steps:
        log.write({"step": step, "loss": 1 / step})
    log.close()


def test_lines_are_json_in_order(tmp_path: Path):
    write(tmp_path, 0, range(1, 4))
    lines = (tmp_path / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]
    assert read_metrics(tmp_path) == [json.loads(line) for line in lines]
    assert read_metrics(tmp_path / "nowhere") == []


def test_each_line_is_there_as_soon_as_it_is_written(tmp_path: Path):
    log = RunLog(tmp_path, 0)
    log.write({"step": 1, "loss": 2.0})
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]
    log.close()


@pytest.mark.parametrize("torn", ["", '{"step": 9, "lo'])
def test_a_resume_takes_back_the_lines_behind_its_checkpoint(tmp_path: Path, torn: str):
    write(tmp_path, 0, range(1, 9))
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write(torn)
    write(tmp_path, 5, range(6, 8))
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]


def test_an_evaluation_at_the_checkpoint_stays(tmp_path: Path):
    log = RunLog(tmp_path, 0)
    for line in ({"step": 4, "loss": 1.0}, {"step": 4, "eval_loss": 2.0}, {"step": 5, "loss": 0.5}):
        log.write(line)
    log.close()
    RunLog(tmp_path, 4).close()
    assert read_metrics(tmp_path) == [{"step": 4, "loss": 1.0}, {"step": 4, "eval_loss": 2.0}]


def test_a_new_run_starts_an_empty_log(tmp_path: Path):
    write(tmp_path, 0, range(1, 4))
    write(tmp_path, 0, range(1, 2))
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]


def test_who_listens_is_told_each_line_that_is_written(tmp_path: Path):
    heard: list[dict] = []
    for folder in (tmp_path, None):  # None: another process writes, and speaks
        log = RunLog(folder, 0, None, heard.append)
        log.write({"step": 1, "loss": 2.0})
        log.close()
    RunLog(tmp_path, 1, None, heard.append).close()  # lines of an earlier start were heard
    assert heard == [{"step": 1, "loss": 2.0}] and len(read_metrics(tmp_path)) == 1


def test_a_long_log_takes_little_memory(tmp_path: Path):
    # Of each figure two numbers are held, not a line, and not an object.
    line = {f"rewards/{number}": number / 7 for number in range(20)}
    log = RunLog(tmp_path, 0)
    tracemalloc.start()
    for step in range(1, 4001):
        log.write({"step": step, **line})
    assert tracemalloc.get_traced_memory()[0] < 50_000
    (tmp_path / RUN_FILE).write_text('{"command": "dpo", "arguments": {}}')
    tracemalloc.reset_peak()
    columns = read_run(tmp_path).columns
    assert len(columns) == 21 and tracemalloc.get_traced_memory()[1] < 4000 * 21 * 16 * 2
    del columns
    before = tracemalloc.get_traced_memory()[0]
    curves = Curves()
    for step in range(1, 4001):
        curves.add({"step": step, **line})
    assert tracemalloc.get_traced_memory()[0] - before < 4000 * 21 * 16 * 1.5
    tracemalloc.stop()
    log.close()


def test_numbers_come_back_bit_for_bit(tmp_path: Path):
    value = 0.1 + 0.2
    log = RunLog(tmp_path, 0)
    log.write({"step": 1, "loss": value})
    log.close()
    RunLog(tmp_path, 1).close()  # rewritten once
    assert read_metrics(tmp_path)[0]["loss"] == value


def test_a_number_that_is_not_finite_is_null(tmp_path: Path):
    log = RunLog(tmp_path, 0)
    log.write({"step": 1, "loss": float("nan"), "grad_norm": float("inf")})
    log.close()
    assert read_metrics(tmp_path) == [{"step": 1, "loss": None, "grad_norm": None}]


def test_incidents_that_cannot_be_written_end_no_run(tmp_path: Path):
    told: list[str] = []
    log = IncidentLog(tmp_path / "gone", 0, told.append)
    log.write({"step": 1, "loss": math.nan})
    log.write({"step": 2, "loss": math.nan})
    assert len(told) == 1 and "incidents.jsonl cannot be written: No such file or directory" in told[0]
    (tmp_path / "gone").mkdir()
    log.write({"step": 3, "loss": math.nan})
    assert read_incidents(tmp_path / "gone") == [{"step": 3, "loss": "nan"}]


def test_half_an_incident_is_taken_back(tmp_path: Path):
    log = IncidentLog(tmp_path, 0, lambda text: None)
    log.write({"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        log.write({"step": 2, "rows": ["data/train.jsonl:1"]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    log.write({"step": 3})
    assert read_incidents(tmp_path) == [{"step": 1}, {"step": 3}]
