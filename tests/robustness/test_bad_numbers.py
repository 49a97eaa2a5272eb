"""Numbers that go wrong while a model is trained: the run stops or goes on without the step, and names its rows."""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from paddlealign.arguments.fields import TrainingArguments
from paddlealign.errors import Stopped
from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import load_model
from paddlealign.training.checkpoint import TrainState, load_checkpoint
from paddlealign.training.feed import Feed
from paddlealign.training.guard import LEAST_STEPS, MOST_SKIPPED, usual_loss
from paddlealign.training.loop import fit
from paddlealign.training.objective import sft_objective
from paddlealign.training.precision import Precision
from paddlealign.training.progress import Progress
from paddlealign.training.run_folder import list_checkpoints
from paddlealign.training.run_log import RunLog, read_metrics
from paddlealign.training.task import Task
from tests.half_precision import loss_scaling
from tests.small_runs import FLOAT32, MODEL, examples, optimizer_of

STEPS = 6  # two examples a step, two epochs


class Run:
    """SFT on the golden LLaMA, whose loss is multiplied by ``factors[step]``, or whose gradient alone is (``gradient``)."""

    def __init__(self, folder: Path, factors: dict[int, float], precision: Precision = FLOAT32, only: str = "both") -> None:
        self.folder, self.factors, self.precision, self.only = folder, factors, precision, only
        self.policy = load_model(MODEL, "float32")
        self.optimizer = optimizer_of(self.policy)
        self.state = TrainState()
        self.seen: list[int] = []  # which steps' losses were computed

    def feed(self, epochs: float = 2) -> Feed:
        sizes = {"pad_id": 0, "seed": 0, "max_length": 64, "micro_batch_size": 2, "accumulation": 1, "packing": "micro_batch"}
        return Feed(examples(1), epochs=epochs, max_steps=-1, **sizes)

    def start(self, resume: int | None = None, epochs: float = 2, **given: Any) -> list[dict[str, Any]]:
        keys = {"logging_steps": 1, "save_strategy": "no", "learning_rate": 1e-3, **given}
        settings = TrainingArguments(output_dir=str(self.folder), **keys)
        objective = sft_objective()
        if resume is not None:
            self.state = load_checkpoint(self.folder / f"checkpoint-{resume}", self.policy, self.optimizer, self.precision)
        first = self.state.step

        def loss(scores: Any, reference: Any, context: Any) -> Any:
            sums = objective.loss(scores, reference, context)
            step = first + len(self.seen) + 1
            self.seen.append(step)
            factor = self.factors.get(step, 1.0)
            told = sums.values["tokens"]["loss"]
            spoilt = told * factor
            if self.only == "gradient":  # the loss is told as it is, and its gradient is spoilt
                spoilt = told + (told * factor - (told * factor).detach()) if math.isfinite(factor) else Spoil.apply(told)
            elif self.only == "loss":
                spoilt = told + paddle.to_tensor(factor) if step in self.factors else told
            return type(sums)({"tokens": {**sums.values["tokens"], "loss": spoilt}})

        self.seen = []
        task = Task(
            self.policy,
            self.optimizer,
            self.precision,
            dataclasses.replace(objective, loss=loss),
            self.feed(epochs),
            objective,
            list,
            {},
            source_of=lambda example: f"rows.jsonl:{example + 1}",
        )
        self.folder.mkdir(exist_ok=True)
        log = RunLog(self.folder, self.state.step)
        try:
            self.state = fit(task, settings, self.state, log, Progress(task.feed.total_steps, self.state.step, disable=True))
        finally:
            log.close()
        return read_metrics(self.folder)

    def rows_of(self, step: int) -> list[str]:
        batches = next(iter(self.feed(epochs=99).steps(first=step - 1))).batches
        return [f"rows.jsonl:{example + 1}" for batch in batches for example in batch.example_ids]

    def weights(self) -> dict[str, np.ndarray]:
        return {name: it.numpy().copy() for name, it in self.policy.named_parameters()}

    def incidents(self) -> list[dict[str, Any]]:
        path = self.folder / "incidents.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Spoil(paddle.autograd.PyLayer):
    """The number as it is, with a gradient that is infinite."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor) -> paddle.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        return gradient * math.inf


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    made: list[Run] = []

    def make(factors: dict[int, float], precision: Precision = FLOAT32, only: str = "both") -> Run:
        made.append(Run(tmp_path / f"run{len(made)}", factors, precision, only))
        return made[-1]

    return make


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("factor", "only"), [(math.nan, "both"), (math.inf, "both"), (math.inf, "gradient"), (math.inf, "loss")])
def test_a_bad_step_stops_the_run_with_a_checkpoint_of_before_it(run: Callable[..., Run], factor: float, only: str) -> None:
    whole = run({})
    whole.start(epochs=2 / 3, lr_scheduler_type="constant")
    broken = run({3: factor}, only=only)
    with pytest.raises(Stopped) as stopped:
        broken.start(lr_scheduler_type="constant")
    assert stopped.value.code == 3 and stopped.value.text.startswith("error: step 3: ") and "\n" not in stopped.value.text
    rows = broken.rows_of(3)
    assert f"Its rows: {', '.join(rows)}. --replay_step 3" in stopped.value.text and "on_bad_numbers skip" in stopped.value.text
    assert equal(broken.weights(), whole.weights())
    assert [line["step"] for line in read_metrics(broken.folder)] == [1, 2]
    [(step, path)] = list_checkpoints(broken.folder)
    assert step == 2
    assert np.array_equal(read_tensors(path / "model.safetensors")["model.norm.weight"], whole.weights()["model.norm.weight"])
    [incident] = broken.incidents()
    assert (incident["kind"], incident["step"], incident["rows"]) == ("bad numbers", 3, rows)
    assert {incident["loss"], incident["grad_norm"]} & {"nan", "inf"}


def test_a_bad_first_step_leaves_no_checkpoint(run: Callable[..., Run]) -> None:
    broken = run({1: math.nan})
    with pytest.raises(Stopped, match="step 1: "):
        broken.start()
    assert list_checkpoints(broken.folder) == [] and read_metrics(broken.folder) == []


def test_after_the_stop_the_run_goes_on_without_the_step(run: Callable[..., Run]) -> None:
    whole = run({3: math.nan})
    lines = whole.start(on_bad_numbers="skip")
    broken = run({3: math.nan})
    with pytest.raises(Stopped):
        broken.start()
    resumed = broken.start(resume=2, on_bad_numbers="skip")
    assert broken.seen == [3, 4, 5, 6] and equal(broken.weights(), whole.weights())
    kept = ("step", "loss", "grad_norm", "learning_rate", "tokens", "examples", "skipped_steps")
    assert [{key: line.get(key) for key in kept} for line in resumed] == [{key: line.get(key) for key in kept} for line in lines]
    assert broken.incidents() == whole.incidents()


@pytest.mark.parametrize(("factor", "only"), [(math.nan, "both"), (math.inf, "gradient"), (math.inf, "loss")])
def test_a_bad_step_can_be_left_out_and_is_counted(
    run: Callable[..., Run], factor: float, only: str, capsys: pytest.CaptureFixture
) -> None:
    made = run({2: factor, 5: factor}, only=only)
    lines = made.start(on_bad_numbers="skip")
    assert [line["step"] for line in lines] == [1, 3, 4, 6]  # every line's loss and norm are of steps that were used
    assert [line.get("skipped_steps") for line in lines] == [None, 1, 1, 2]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert [line["examples"] for line in lines] == [2, 6, 8, 12]  # those of the step were read
    assert (made.state.step, made.state.skipped) == (STEPS, 2)
    said = capsys.readouterr().out
    assert f"left out (1 so far, on_bad_numbers skip). Its rows: {', '.join(made.rows_of(2))}" in said
    assert [incident["step"] for incident in made.incidents()] == [2, 5]


def test_a_line_of_several_steps_is_of_those_that_were_used(run: Callable[..., Run]) -> None:
    plain, made = run({}), run({2: math.nan})
    first = plain.start()[0]
    line = made.start(on_bad_numbers="skip", logging_steps=2)[0]
    assert (line["step"], line["loss"], line["grad_norm"]) == (2, first["loss"], first["grad_norm"])


def test_a_step_that_is_left_out_changes_neither_weights_nor_moments(run: Callable[..., Run]) -> None:
    made = run({2: math.nan})
    made.start(on_bad_numbers="skip", save_strategy="steps", save_steps=1, epochs=2 / 3)
    first, second = (path for _, path in list_checkpoints(made.folder))
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_checkpoint_can_be_written_before_any_update(run: Callable[..., Run]) -> None:
    made = run({1: math.nan})
    made.start(on_bad_numbers="skip", save_strategy="steps", save_steps=1, epochs=1 / 3)
    again = run({})
    again.folder = made.folder
    again.start(resume=1, epochs=1)
    assert again.state.step == 3


def test_too_many_in_a_row_stop_the_run_after_all(run: Callable[..., Run]) -> None:
    bad = dict.fromkeys(range(2, 40), math.nan)
    made = run(bad)
    with pytest.raises(Stopped, match=rf"step {MOST_SKIPPED + 2}: .*, {MOST_SKIPPED} steps in a row before it were left out") as stopped:
        made.start(on_bad_numbers="skip", epochs=8)
    assert stopped.value.code == 3 and [step for step, _ in list_checkpoints(made.folder)] == [MOST_SKIPPED + 1]
    others = run({step: math.nan for step in bad if step % 7})  # never so many in a row
    others.start(on_bad_numbers="skip", epochs=8)
    assert others.state.step == 24


def test_an_overflow_is_the_loss_scalers_business(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """It lowers its scale and the run goes on, whatever on_bad_numbers says; no step is counted as left out by that."""
    made = run({2: math.inf}, loss_scaling(monkeypatch), "gradient")
    lines = made.start()
    assert made.state.skipped == 0 and made.incidents() == []
    assert [line["grad_norm"] for line in lines].count(None) == 1 and len(lines) == STEPS
    loss = run({2: math.nan}, loss_scaling(monkeypatch))
    with pytest.raises(Stopped, match="step 2: "):
        loss.start()


# ---- spikes


def spiked(losses: Sequence[float], loss: float) -> bool:
    return usual_loss(losses, loss) is not None


def test_a_spike_is_far_above_the_last_losses() -> None:
    level = [2.0 + 0.05 * math.sin(7 * step) for step in range(LEAST_STEPS)]
    assert spiked(level, 3.2) and not spiked(level, 2.9)  # half of the usual loss, at least
    assert not spiked(level[1:], 9.0)  # too few to tell
    assert not spiked(level, 0.1)
    wide = [2.0 + math.sin(7 * step) for step in range(LEAST_STEPS)]
    assert not spiked(wide, 3.2) and spiked(wide, 12.0)
    assert spiked([*level, 9.0, 9.0], 9.0)  # earlier ones do not hide it
    negative = [-1.0] * LEAST_STEPS  # some losses are
    assert spiked(negative, -0.4) and not spiked(negative, -0.6)
    assert usual_loss(level, 9.0) == pytest.approx(2.0, abs=0.05)


def test_a_spike_is_told_with_its_rows(run: Callable[..., Run], capsys: pytest.CaptureFixture) -> None:
    made = run({25: 5.0})
    lines = made.start(epochs=10, learning_rate=1e-6)
    [incident] = made.incidents()
    assert (incident["kind"], incident["step"], incident["rows"]) == ("loss spike", 25, made.rows_of(25))
    assert incident["loss"] == lines[24]["loss"] and incident["usual_loss"] == pytest.approx(lines[24]["loss"] / 5, rel=0.2)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step 25: the loss is ")]
    assert len(told) == 1 and told[0].endswith(f"Its rows: {', '.join(made.rows_of(25))}")
    assert len(lines) == 30


def test_a_resumed_run_knows_the_losses_before_it(run: Callable[..., Run]) -> None:
    made = run({25: 5.0})
    made.start(epochs=10, learning_rate=1e-6, save_strategy="steps", save_steps=22)
    [incident] = made.incidents()
    resumed = run({25: 5.0})
    resumed.folder = made.folder
    resumed.start(resume=22, epochs=10, learning_rate=1e-6)
    assert resumed.incidents() == [incident]  # of step 25: the first start's was taken back
