"""Other people's viewers of curves: event files of VisualDL and TensorBoard, and Weights & Biases. All get the lines of metrics.jsonl.

Names are transformers' and TRL's: ``train/loss``, ``eval/loss``. A viewer that fails is told once and left; it never ends the run.
"""

import importlib.util
import math
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

WANDB_VERSION = "0.27.0"  # that the tests run with

Line = Mapping[str, Any]


@dataclass(frozen=True)
class About:
    """What viewers are told of a run.

    name, config: how it is called there, and its arguments. renamed: names of the run log that TRL has another one for. resumes: whether
    the run goes on from a checkpoint.
    """

    name: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    resumes: bool = False


class Lines(NamedTuple):
    """Lines of an earlier start: kept by this one, and all that there were before it."""

    kept: Sequence[Line]
    before: Sequence[Line]


class Viewer(Protocol):
    """Where the lines of a run go."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take one line: finite numbers by the viewer's names."""

    def close(self) -> None:
        """Bring everything to the disk, or to the service."""


class VisualDL:
    """Event files in a folder, written anew: earlier ones hold steps that a resumed run takes once more, and VisualDL shows both."""

    def __init__(self, folder: Path) -> None:
        from visualdl import LogWriter  # here, since it takes a second to import

        _remove(folder, "vdlrecords.*.log")
        self._writer = LogWriter(logdir=str(folder))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Viewer``."""
        for name, value in values.items():
            self._writer.add_scalar(tag=name, value=value, step=step)

    def close(self) -> None:
        """See ``Viewer``."""
        self._writer.close()


class TensorBoard:
    """An event file in a folder, written anew as VisualDL's are.

    Written by this thread: tensorboardX's SummaryWriter has one of its own, which a full disk ends; its queue then fills, and the run waits
    for room in it for ever.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter  # here, as above

        folder.mkdir(parents=True, exist_ok=True)
        _remove(folder, "events.out.tfevents.*")
        self._writer = EventsWriter(str(folder / "events"))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Viewer``."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        """See ``Viewer``."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, or its offline twin (WANDB_MODE=offline), in output_dir/wandb; a resumed run is the same one there.

    It forgets nothing, so a step that a resumed run takes once more is not sent again.
    """

    def __init__(self, output_dir: Path, about: About, before: Iterable[Line], tell: Callable[[str], None]) -> None:
        """before: lines of an earlier start. tell: is told where the run can be seen."""
        import wandb  # here, since it need not be installed

        id_file = output_dir / "wandb" / "run_id"
        continues = about.resumes and id_file.is_file()
        self._sent = {_what_of(line["step"], viewer_values(line, about.renamed)) for line in before} if continues else set()
        run_id = id_file.read_text(encoding="utf-8").strip() if continues else os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        id_file.parent.mkdir(parents=True, exist_ok=True)
        id_file.write_text(f"{run_id}\n", encoding="utf-8")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "paddlealign"),
            name=os.environ.get("WANDB_NAME", about.name),
            id=run_id,
            resume=None if os.environ.get("WANDB_MODE", "online") != "online" else "allow",  # an offline run has nothing to ask
            dir=str(output_dir),
            config=dict(about.config),
            settings=wandb.Settings(console="off", silent=True),  # the screen is the run's
        )
        self._run.define_metric("train/global_step")
        self._run.define_metric("*", step_metric="train/global_step")
        if self._run.offline:
            tell(f"wandb: offline; python -m wandb sync {Path(self._run.dir).parent} sends the run")
        elif self._run.url:
            tell(f"wandb: {self._run.url}")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Viewer``."""
        if _what_of(step, values) not in self._sent:
            self._run.log({**values, "train/global_step": step})

    def close(self) -> None:
        """See ``Viewer``."""
        import wandb

        self._run.finish()
        wandb.teardown()  # without which its file is written up to two seconds later


def _what_of(step: int, values: Mapping[str, float]) -> tuple[int, frozenset[str]]:
    return step, frozenset(values)


class Viewers:
    """All viewers of one run."""

    def __init__(self, names: Iterable[str], output_dir: Path, about: About, lines: Lines, tell: Callable[[str], None]) -> None:
        """Open the viewers. lines: of an earlier start. tell: is told what cannot be written."""
        self._tell, self._renamed = tell, about.renamed
        self._open: dict[str, Viewer] = {}
        makers: dict[str, Callable[[], Viewer]] = {
            "visualdl": lambda: VisualDL(output_dir / "visualdl"),
            "tensorboard": lambda: TensorBoard(output_dir / "tensorboard"),
            "wandb": lambda: WeightsAndBiases(output_dir, about, lines.before, tell),
        }
        for name in names:
            with self._never_ends_a_run(name):
                self._open[name] = makers[name]()
                for line in lines.kept:
                    self._give(name, line)

    def add(self, line: Line) -> None:
        """Give a line of the run log to all."""
        for name in list(self._open):
            with self._never_ends_a_run(name):
                self._give(name, line)

    def close(self) -> None:
        """Close all."""
        for name in list(self._open):
            with self._never_ends_a_run(name):
                self._open[name].close()

    def _give(self, name: str, line: Line) -> None:
        self._open[name].add(line["step"], viewer_values(line, self._renamed))

    @contextmanager
    def _never_ends_a_run(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not worth a run
            self._open.pop(name, None)
            self._tell(f"note: {name} is written no further: {error}; the run goes on, and metrics.jsonl has all lines")


def viewer_values(line: Line, renamed: Mapping[str, str]) -> dict[str, float]:
    """The finite numbers of a line by the names that transformers gives them: train/..., eval/..., and samples/... as they are."""
    values = {name: value for name, value in line.items() if name != "step" and value is not None and math.isfinite(value)}
    if "eval_loss" in line:
        values.pop("epoch", None)  # the training lines have it
    return {viewer_name(name, renamed): value for name, value in values.items()}


def viewer_name(name: str, renamed: Mapping[str, str]) -> str:
    """A name of the run log as transformers' callbacks write it."""
    if name.startswith("samples/"):
        return name
    kind, plain = ("eval", name.removeprefix("eval_")) if name.startswith("eval_") else ("train", name)
    return f"{kind}/{renamed.get(plain, plain)}"


def missing_viewer(names: Iterable[str]) -> str | None:
    """What to say of a viewer whose package is not installed, or None."""
    if "wandb" in names and importlib.util.find_spec("wandb") is None:
        return f"report_to: wandb is not installed. Install it (python -m pip install wandb=={WANDB_VERSION}), or leave it out of report_to"
    return None


def _remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()
