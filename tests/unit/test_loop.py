"""The loop's own business: when it logs, evaluates, saves, stops, and which weights it ends with. Steps are scripted."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest

from paddlealign.arguments.fields import TrainingArguments
from paddlealign.errors import Stopped
from paddlealign.models.decoder import Decoder
from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import load_model
from paddlealign.training import loop
from paddlealign.training.checkpoint import TrainState, load_checkpoint
from paddlealign.training.feed import Feed
from paddlealign.training.loop import fit
from paddlealign.training.objective import sft_objective
from paddlealign.training.optimizer import learning_rate_at
from paddlealign.training.progress import Progress
from paddlealign.training.run_folder import list_checkpoints
from paddlealign.training.run_log import RunLog, read_metrics
from paddlealign.training.step import Sums
from paddlealign.training.task import Task
from tests.small_runs import FLOAT32, MODEL, examples, optimizer_of

STEPS_OF_AN_EPOCH = 3
NORM = "model.norm.weight"


def scripted_sums(step: int) -> Sums:
    """What step number ``step`` (1 is the first) yields: no two have one count or loss."""
    values = {"tokens": {"loss": 10.0 / step + step * 0.1, "accuracy": float(step)}}
    return Sums(values, counts={"tokens": 7 * step}, tokens=9 * step, examples=2, padding=step)


class Run:
    """A run whose gradients, evaluations and updates are scripted; each step writes its number into the weights of the last norm."""

    def __init__(self, output_dir: Path, patch: pytest.MonkeyPatch, evaluations: dict[int, float]):
        self.output_dir, self.evaluations, self.patch = output_dir, evaluations, patch
        self.policy = load_model(MODEL, "float32")
        self.state = TrainState()
        self.seconds = 0.0

    def evaluate(self, *arguments: Any) -> Sums:
        self.seconds += 100.0
        return Sums({"tokens": {"loss": self.evaluations[self.state.step] * 4}}, {"tokens": 4}, 4, 4)

    def take_step(self, policy: Decoder, *_: Any) -> float:
        self.seconds += 0.5
        policy.model.norm.weight.set_value(np.full(32, self.state.step + 1, "float32"))
        return 0.5

    def start(self, *, epochs: float = 3, resume: int | None = None, given: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Train; resume: from this checkpoint. given: training arguments. Returns the run log."""
        settings = TrainingArguments(output_dir=str(self.output_dir), **{"logging_steps": 1, "save_strategy": "no", **(given or {})})
        optimizer = optimizer_of(self.policy)
        for parameter in self.policy.parameters():  # moments to save
            parameter.grad = paddle.zeros_like(parameter)
        optimizer.step()
        self.state = TrainState()
        if resume is not None:
            self.state = load_checkpoint(self.output_dir / f"checkpoint-{resume}", self.policy, optimizer, FLOAT32)
        self.patch.setattr(loop, "accumulate_gradients", lambda *arguments, draw: scripted_sums(self.state.step + 1))
        self.patch.setattr(loop, "apply_gradients", self.take_step)
        self.patch.setattr(loop, "evaluate", self.evaluate)
        self.patch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: self.seconds))
        feed = Feed(
            examples(1),
            pad_id=0,
            seed=0,
            max_length=64,
            micro_batch_size=2,
            accumulation=1,
            packing="micro_batch",
            epochs=epochs,
            max_steps=-1,
        )
        self.output_dir.mkdir(exist_ok=True)
        log = RunLog(self.output_dir, self.state.step)
        objective = sft_objective()
        task = Task(self.policy, optimizer, FLOAT32, objective, feed, objective, list, {})
        self.state = fit(task, settings, self.state, log, Progress(feed.total_steps, self.state.step, disable=True))
        log.close()
        return read_metrics(self.output_dir)

    def weights(self) -> float:
        """The step that the weights are of."""
        values = set(self.policy.model.norm.weight.tolist())
        assert len(values) == 1
        return values.pop()

    def saved(self) -> dict[int, float]:
        """Each checkpoint's step and the step that its weights are of."""
        return {step: float(read_tensors(path / "model.safetensors")[NORM][0]) for step, path in list_checkpoints(self.output_dir)}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Make a run of 3 steps an epoch. evaluations: the loss that an evaluation after each step finds."""
    return lambda evaluations=None: Run(tmp_path / "out", monkeypatch, dict(enumerate(evaluations or [], 1)))


def steps_of(lines: Sequence[dict[str, Any]], key: str) -> list[int]:
    return [line["step"] for line in lines if key in line]


def test_a_logged_line_is_the_exact_mean_since_the_line_before(run: Callable[..., Run]):
    lines = run().start(given={"logging_steps": 4})
    assert steps_of(lines, "loss") == [4, 8, 9]
    for line, steps in zip(lines, (range(1, 5), range(5, 9), range(9, 10)), strict=True):
        parts = [scripted_sums(step) for step in steps]
        count = sum(part.counts["tokens"] for part in parts)
        assert line["loss"] == pytest.approx(sum(part.values["tokens"]["loss"] for part in parts) / count, rel=1e-12)
        assert line["accuracy"] == pytest.approx(sum(steps) / count, rel=1e-12)
        assert line["tokens"] == sum(9 * step for step in range(1, line["step"] + 1))
        assert line["examples"] == 2 * line["step"]
        assert line["padding"] == 0.1  # 1 of 10 positions in every step
        assert line["epoch"] == pytest.approx(line["step"] / STEPS_OF_AN_EPOCH, abs=1e-4)


def test_a_window_goes_through_a_checkpoint(run: Callable[..., Run]):
    """Saved at 5, in the middle of the window 5 to 8: the resumed run logs the same mean."""
    first = run()
    keys = {"logging_steps": 4, "save_strategy": "steps", "save_steps": 5}
    whole = [without_speed(line) for line in first.start(given=keys)]
    resumed = [without_speed(line) for line in first.start(given=keys, resume=5)]
    assert resumed == whole
    assert steps_of(resumed, "loss") == [4, 8, 9]


def test_every_schedule_that_may_be_asked_for_is_known():
    (choices,) = (field.metadata["choices"] for field in dataclasses.fields(TrainingArguments) if field.name == "lr_scheduler_type")
    assert {kind: learning_rate_at(7, 10, 1.0, 2, kind) for kind in choices} == pytest.approx({
        "linear": 0.375, "cosine": 0.5 * (1 + math.cos(math.pi * 5 / 8)), "constant": 1, "constant_with_warmup": 1
    })  # fmt: skip
    with pytest.raises(ValueError, match="polynomial"):
        learning_rate_at(7, 10, 1.0, 2, "polynomial")


def without_speed(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if "per_second" not in name and name != "memory_gib"}


def test_the_speed_is_that_of_the_steps_alone(run: Callable[..., Run]):
    """A step takes half a second and an evaluation, in the middle of a line's steps or at their end, a hundred."""
    lines = run([5.0] * 9).start(given={"logging_steps": 4, "evaluation_strategy": "steps", "eval_steps": 2})
    speeds = [line["tokens_per_second"] for line in lines if "loss" in line]
    assert speeds == [sum(9 * step for step in steps) / (0.5 * len(steps)) for steps in (range(1, 5), range(5, 9), range(9, 10))]


def test_the_learning_rate_of_each_step_is_logged(run: Callable[..., Run]):
    lines = run().start(given={"learning_rate": 0.9, "warmup_steps": 3, "lr_scheduler_type": "linear"})
    assert [line["learning_rate"] for line in lines] == pytest.approx([0, 0.3, 0.6, 0.9, 0.75, 0.6, 0.45, 0.3, 0.15])
    lines = run().start(given={"learning_rate": 0.9, "warmup_steps": 3, "lr_scheduler_type": "linear", "min_learning_rate": 0.3})
    assert [line["learning_rate"] for line in lines] == pytest.approx([0, 0.3, 0.6, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    lines = run().start(given={"learning_rate": 0.9, "warmup_ratio": 0.3, "lr_scheduler_type": "constant_with_warmup"})
    assert [line["learning_rate"] for line in lines] == pytest.approx([0, 0.3, 0.6] + [0.9] * 6)


@pytest.mark.parametrize(
    "strategy, every, epochs, due",
    [
        ("no", 2, 3, []),
        ("steps", 2, 3, [2, 4, 6, 8]),
        ("steps", 3, 3, [3, 6, 9]),
        ("epoch", 2, 3, [3, 6, 9]),
        ("epoch", 2, 2.5, [3, 6, 8]),  # the run's end closes its last epoch
    ],
)
def test_evaluations_and_checkpoints_come_when_they_are_due(
    run: Callable[..., Run], strategy: str, every: int, epochs: float, due: list[int]
):
    made = run([5.0] * 9)
    lines = made.start(epochs=epochs, given={"evaluation_strategy": strategy, "eval_steps": every})
    assert steps_of(lines, "eval_loss") == due
    assert made.saved() == {}
    made.start(epochs=epochs, given={"save_strategy": strategy, "save_steps": every})
    assert made.saved() == {step: step for step in due}


def test_evaluations_default_to_the_logging_steps(run: Callable[..., Run]):
    assert steps_of(run([1.0] * 9).start(given={"evaluation_strategy": "steps", "logging_steps": 4}), "eval_loss") == [4, 8]


BEST = {"evaluation_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True}


def test_the_best_checkpoint_becomes_the_model(run: Callable[..., Run], capsys: pytest.CaptureFixture):
    made = run([9, 7, 3, 8, 3, 6, 5, 5, 4])
    made.start(given={**BEST, "save_total_limit": 2})
    assert (made.state.best_step, made.state.best_metric) == (3, 3.0)  # the first of equals
    assert made.weights() == 3
    assert made.saved() == {3: 3, 9: 9}
    assert "the final model is that of step 3" in capsys.readouterr().out


def test_greater_may_be_better(run: Callable[..., Run]):
    made = run([9, 7, 3, 8, 12, 6, 5, 5, 4])
    made.start(given={**BEST, "greater_is_better": True})
    assert (made.state.best_step, made.weights()) == (5, 5)


def test_without_load_best_the_last_weights_stay(run: Callable[..., Run]):
    made = run([9, 7, 3, 8, 12, 6, 5, 5, 4])
    made.start(given={**BEST, "load_best_model_at_end": False, "save_total_limit": 1})
    assert (made.state.best_step, made.weights()) == (3, 9)
    assert made.saved() == {9: 9}


def test_a_resume_lets_the_checkpoints_go_that_a_killed_start_had_left(run: Callable[..., Run]):
    """The start before was killed behind its last checkpoint, before the oldest ones went; no other checkpoint comes."""
    made = run([9] * 9)
    made.start(given=BEST)
    assert len(made.saved()) == 9
    made.start(given={**BEST, "load_best_model_at_end": False, "save_total_limit": 2}, resume=9)
    assert made.saved().keys() == {8, 9}


def test_the_best_is_chosen_among_what_was_saved(run: Callable[..., Run]):
    """Step 3 is the best of all evaluations, but it has no checkpoint that the run could end with."""
    made = run([9, 7, 3, 6, 5, 8, 8, 8, 8])
    made.start(given={**BEST, "save_steps": 2})
    assert (made.state.best_step, made.weights()) == (4, 4)


def test_the_last_weights_may_be_the_best_without_a_checkpoint(run: Callable[..., Run]):
    made = run([9, 7, 6, 6, 5, 8, 8, 8, 1])
    made.start(given={**BEST, "save_steps": 2})
    assert (made.state.best_step, made.weights()) == (9, 9)


def test_early_stopping_counts_evaluations_in_a_row(run: Callable[..., Run], capsys: pytest.CaptureFixture):
    made = run([9, 8, 8, 7, 7.5, 7.2, 1, 1, 1])
    keys = {**BEST, "early_stopping_patience": 2}
    made.start(given=keys)
    assert (made.state.step, made.state.best_step, made.weights()) == (6, 4, 4)
    assert "stopped early at step 6: 2 evaluations without a better loss" in capsys.readouterr().out
    made.start(given=keys, resume=6)  # what was stopped stays so
    assert (made.state.step, made.weights()) == (6, 4)
    made.start(given={**keys, "early_stopping_patience": 3}, resume=6)
    assert (made.state.step, made.state.best_step) == (9, 7)


def test_early_stopping_asks_for_a_threshold(run: Callable[..., Run]):
    made = run([9, 8.9, 8.8, 8.7, 1, 1, 1, 1, 1])
    made.start(given={**BEST, "early_stopping_patience": 3, "early_stopping_threshold": 0.5})
    assert (made.state.step, made.state.best_step) == (4, 4)


def test_the_best_so_far_goes_through_a_checkpoint(run: Callable[..., Run]):
    made = run([9, 3, 8, 8, 8, 8, 8, 8, 8])
    made.start(given=BEST)
    assert made.saved().keys() >= {2, 5}
    made.start(given=BEST, resume=5)
    assert (made.state.best_step, made.weights()) == (2, 2)


def test_a_best_checkpoint_that_is_elsewhere_is_told_and_forgotten(run: Callable[..., Run], capsys: pytest.CaptureFixture):
    made = run([9, 3, 8, 8, 8, 8, 7, 8, 8])
    made.start(given=BEST)
    for step in (1, 2, 3, 4):
        (made.output_dir / f"checkpoint-{step}").rename(made.output_dir / f"moved-{step}")
    made.start(given=BEST, resume=5)
    assert (made.state.best_step, made.weights()) == (7, 7)
    assert "of step 2, is not in" in capsys.readouterr().out


def test_a_gradient_that_is_not_finite_stops_the_run_and_leaves_the_weights(tmp_path: Path):
    policy = load_model(MODEL, "float32")
    optimizer = optimizer_of(policy)
    objective = sft_objective()
    feed = Feed(
        examples(1), pad_id=0, seed=0, max_length=64, micro_batch_size=2, accumulation=1, packing="micro_batch", epochs=1, max_steps=-1
    )
    before: dict[str, np.ndarray] = {}

    def loss(scores: Any, reference_logps: Any, context: Any) -> Any:
        sums = objective.loss(scores, reference_logps, context)
        if loss.calls == 1:
            before.update({name: parameter.numpy().copy() for name, parameter in policy.named_parameters()})
            sums = type(sums)({"tokens": {**sums.values["tokens"], "loss": sums.values["tokens"]["loss"] * float("nan")}})
        loss.calls += 1
        return sums

    loss.calls = 0
    broken = dataclasses.replace(objective, loss=loss)
    log = RunLog(tmp_path, 0)
    settings = TrainingArguments(output_dir=str(tmp_path), logging_steps=1, learning_rate=1e-3)
    task = Task(policy, optimizer, FLOAT32, broken, feed, objective, list, {})
    state = TrainState()
    message = r"^error: step 2: the gradient's norm is nan and the loss nan; the weights were left as they were.*learning_rate \(0\.001\)"
    with pytest.raises(Stopped, match=message):
        fit(task, settings, state, log, Progress(3, 0, disable=True))
    log.close()
    assert state.step == 1 and steps_of(read_metrics(tmp_path), "loss") == [1]
    assert all((parameter.numpy() == before[name]).all() for name, parameter in policy.named_parameters())
