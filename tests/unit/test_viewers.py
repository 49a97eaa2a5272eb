"""Other people's viewers: what is in their files is what metrics.jsonl has, by transformers' names, and no step stands there twice."""

import importlib.util
import json
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from paddlealign.training.run_log import RunLog
from paddlealign.training.viewers import WANDB_VERSION, About, Lines, Viewers, missing_viewer, viewer_values
from tests.least_arguments import run

FIRST = (
    {"step": 1, "epoch": 0.5, "loss": 2.0, "accuracy": 0.5},
    {"step": 2, "epoch": 1.0, "loss": 1.0, "accuracy": 0.75},
    {"step": 2, "epoch": 1.0, "eval_loss": 1.5, "eval_accuracy": 0.625},
    {"step": 3, "epoch": 1.5, "loss": 0.5, "accuracy": 1.0},
)
SECOND = (FIRST[3], {"step": 4, "epoch": 2.0, "loss": 0.25, "accuracy": 1.0})  # from the checkpoint of step 2
RENAMED = {"accuracy": "mean_token_accuracy"}
WANTED = {
    "train/loss": [(1, 2.0), (2, 1.0), (3, 0.5), (4, 0.25)],
    "train/mean_token_accuracy": [(1, 0.5), (2, 0.75), (3, 1.0), (4, 1.0)],
    "train/epoch": [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)],
    "eval/loss": [(2, 1.5)],
    "eval/mean_token_accuracy": [(2, 0.625)],
}


def train_twice(folder: Path, viewer: str, tell: Callable[[str], None] = pytest.fail) -> None:
    """A run of three steps that is killed, and goes on from its second."""
    for first_step, lines in ((0, FIRST), (2, SECOND)):
        about = About("a name", {"seed": 42}, RENAMED, resumes=first_step > 0)
        log = RunLog(folder, first_step, lambda found, about=about: Viewers([viewer], folder, about, found, tell))
        for line in lines:
            log.write(line)
        log.close()
        for path in folder.glob("wandb/offline-run-*"):  # wandb names it by the second, in which the next start may be, too
            path.rename(path.with_name(f"start-{first_step}"))


def events_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars in TensorBoard's files, read by the format's own description: length, checksum, record, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    for path in folder.glob("events.out.tfevents.*"):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return {name: sorted(points) for name, points in found.items()}


def test_tensorboard_has_each_step_once_after_a_resume(tmp_path: Path):
    train_twice(tmp_path, "tensorboard")
    assert events_of(tmp_path / "tensorboard") == WANTED


def test_visualdl_has_each_step_once_after_a_resume(tmp_path: Path):
    train_twice(tmp_path, "visualdl")
    from visualdl import LogReader

    [events] = (tmp_path / "visualdl").glob("vdlrecords.*.log")
    reader = LogReader(file_path=str(events))
    assert {tag: [(it.id, it.value) for it in reader.get_data("scalar", tag)] for tag in reader.get_tags()["scalar"]} == WANTED


def test_wandb_offline_has_each_step_once_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "a project")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    told: list[str] = []
    train_twice(tmp_path, "wandb", told.append)
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    found: dict[str, list[tuple[int, float]]] = {}
    runs = set()
    for path in sorted(tmp_path.glob("wandb/start-*/*.wandb")):
        store = DataStore()
        store.open_for_scan(str(path))
        while (data := store.scan_data()) is not None:
            record = Record.FromString(data)
            if record.HasField("run"):
                runs.add((record.run.run_id, record.run.project, record.run.display_name))
            values = {it.nested_key[0] if it.nested_key else it.key: json.loads(it.value_json) for it in record.history.item}
            for name in values.keys() & WANTED:
                found.setdefault(name, []).append((values["train/global_step"], values[name]))
        store.close()
    assert found == WANTED
    assert runs == {((tmp_path / "wandb" / "run_id").read_text().strip(), "a project", "a name")}
    assert len(told) == 2 and all(text.startswith("wandb: offline; python -m wandb sync ") for text in told)


def test_a_new_run_forgets_the_old_ones_events(tmp_path: Path):
    train_twice(tmp_path, "tensorboard")
    log = RunLog(tmp_path, 0, lambda lines: Viewers(["tensorboard"], tmp_path, About(), lines, pytest.fail))
    log.write({"step": 1, "epoch": 1.0, "loss": 4.0})
    log.close()
    assert events_of(tmp_path / "tensorboard") == {"train/loss": [(1, 4.0)], "train/epoch": [(1, 1.0)]}


def test_several_viewers_and_one_that_fails(tmp_path: Path):
    (tmp_path / "tensorboard").write_text("a file where a folder is needed")
    told: list[str] = []
    viewers = Viewers(["tensorboard", "visualdl"], tmp_path, About(), Lines([], []), told.append)
    viewers.add({"step": 1, "loss": 1.0})
    viewers.close()
    assert len(told) == 1 and told[0].startswith("note: tensorboard is written no further: ")
    assert len(list((tmp_path / "visualdl").glob("vdlrecords.*.log"))) == 1


def test_names_are_transformers_and_numbers_finite():
    line = {"step": 1, "epoch": 1.0, "rewards/margins": 0.5, "grad_norm": float("nan"), "loss": None, "tokens": 3}
    assert viewer_values(line, {}) == {"train/epoch": 1.0, "train/rewards/margins": 0.5, "train/tokens": 3}
    sampled = {"step": 1, "epoch": 1.0, "samples/length": 5.0}
    assert viewer_values(sampled, {}) == {"train/epoch": 1.0, "samples/length": 5.0}


def test_wandb_that_is_not_installed_is_refused_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    assert missing_viewer(["visualdl", "wandb"]) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert missing_viewer(["visualdl", "tensorboard"]) is None
    said = missing_viewer(["wandb"])
    assert said is not None and f"python -m pip install wandb=={WANDB_VERSION}" in said
    pins = (Path(__file__).resolve().parents[2] / "requirements-dev.txt").read_text().splitlines()
    assert Counter(pins)[f"wandb=={WANDB_VERSION}"] == 1


def test_trl_has_other_names_in_sft_alone(tmp_path: Path):
    from paddlealign.recipes.run_words import viewers_of_run

    opened = viewers_of_run(run(tmp_path, report_to="tensorboard", output_dir=str(tmp_path / "out")), False, pytest.fail)
    assert opened is not None
    viewers = opened(Lines([{"step": 1, "accuracy": 0.5, "tokens": 7}], []))
    viewers.close()
    assert events_of(tmp_path / "out" / "tensorboard") == {"train/mean_token_accuracy": [(1, 0.5)], "train/num_tokens": [(1, 7.0)]}
    assert viewers_of_run(run(tmp_path), False, pytest.fail) is None
