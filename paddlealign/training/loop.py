"""The training loop: batches in, weights, checkpoints and a run log out. It reads from top to bottom."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from paddle.optimizer import AdamW

from paddlealign.arguments.fields import TrainingArguments
from paddlealign.data.example import Batch
from paddlealign.errors import Stopped
from paddlealign.models.decoder import Decoder
from paddlealign.parallel.collect import everywhere
from paddlealign.parallel.pipeline import LONE_CHAIN, Chain
from paddlealign.parallel.sharding import Sharding, unsharded
from paddlealign.parallel.topology import SINGLE, Topology
from paddlealign.training.checkpoint import TrainState, load_trained, prune_checkpoints, save_checkpoint
from paddlealign.training.feed import Feed
from paddlealign.training.guard import BAD_NUMBERS_CODE, Guard
from paddlealign.training.moving_reference import MovingReference, follow
from paddlealign.training.objective import Objective
from paddlealign.training.optimizer import learning_rate_at
from paddlealign.training.precision import Precision
from paddlealign.training.progress import Progress
from paddlealign.training.run_log import RunLog
from paddlealign.training.step import Sums, accumulate_gradients, add_up, apply_gradients, evaluate

# What metric_for_best_model's short names mean; of DPO's rewards the names stand last.
METRIC_NAMES = {"loss": ("loss",), "accuracy": ("accuracy", "rewards/accuracies"), "margin": ("margin", "rewards/margins")}


class Sampled(NamedTuple):
    """What the policy's answers at a step come to. metrics: for the run log. shown: lines for the screen."""

    metrics: dict[str, float]
    shown: list[str]


@dataclass(frozen=True)
class Task:
    """All that a run is made of, ready to start.

    feed: the training rows in their order. dev_batches: makes the evaluation batches, anew each time. side_files: what is copied beside
    the weights, see ``checkpoint.save_policy``. sample: lets the policy answer prompts, given the step; None where that is not asked for.
    moving: the reference, where it follows the policy. source_of: "file:line" of an example's row, where that is known.
    """

    policy: Decoder
    optimizer: AdamW
    precision: Precision
    objective: Objective
    feed: Feed
    dev_objective: Objective
    dev_batches: Callable[[], Iterable[Batch]]
    side_files: Mapping[str, bytes]
    topology: Topology = SINGLE
    chain: Chain = LONE_CHAIN
    sharding: Sharding = field(default_factory=unsharded)
    sample: Callable[[int], Sampled] | None = None
    moving: MovingReference | None = None
    source_of: Callable[[int], str] | None = None


def fit(
    task: Task, settings: TrainingArguments, state: TrainState, log: RunLog, progress: Progress, asked: Callable[[], int] = lambda: 0
) -> TrainState:
    """Train from ``state`` to the end of the feed, or until early stopping. Returns the last state.

    asked: whether to stop after this step with a checkpoint, as the exit code to end with, or 0 to go on; the same in all processes. Raises
    Stopped after that checkpoint, and where a step's loss or gradient is not finite (``on_bad_numbers``), after one of before that step.
    """
    output_dir = Path(settings.output_dir)
    total = task.feed.total_steps
    # Sums since the last line of the log: of an earlier start of this run, and of this one; only the latter were timed.
    carried = [Sums(**state.window)] if state.window else []
    window: list[Sums] = []
    norm = math.nan
    guard = Guard(settings, state, task.topology, task.precision.scaler is not None, task.source_of, progress)
    window_start = time.perf_counter()
    best = output_dir / f"checkpoint-{state.best_step}"
    if settings.load_best_model_at_end and state.best_step and not everywhere(task.topology, best.is_dir()):
        progress.say(f"the best checkpoint so far, of step {state.best_step}, is not in {output_dir}; the best one is chosen from here on")
        state.best_metric = state.best_step = None
    for step in task.feed.steps(first=state.step):
        if settings.early_stopping_patience and state.stale_evaluations >= settings.early_stopping_patience:
            stale = f"{state.stale_evaluations} evaluations without a better {settings.metric_for_best_model}"
            progress.say(f"stopped early at step {state.step}: {stale}")
            break
        sums = step_gradients(task, settings, step.batches, state.step)
        rate = rate_of(settings, state.step, total)
        found = update(task, settings, sums, rate)
        verdict = guard.judge(state.step + 1, step.batches, sums.means()["loss"], found)
        if verdict == "stop":
            if state.step:
                _save(task, state, settings, [*carried, *window], progress)
            everywhere(task.topology, True)  # as below
            raise Stopped(guard.why, BAD_NUMBERS_CODE)
        state.step += 1
        follow(task.moving, task.policy, state.step)
        state.epoch = step.epoch
        state.tokens += sums.tokens
        state.examples += sums.examples
        if verdict == "use":
            norm = found
            window.append(sums)
        last = state.step == total
        progress.advance(sums.means())
        if (last or state.step % settings.logging_steps == 0) and window:
            line = _train_line(add_up([*carried, *window]), state, rate, norm)
            line |= _speed(add_up(window), time.perf_counter() - window_start)
            progress.show(line)
            log.write(line)
            carried, window, window_start = [], [], time.perf_counter()
        pause = time.perf_counter()
        saves = _is_due(settings.save_strategy, settings.save_steps, state.step, step.ends_epoch, last)
        evaluates = _is_due(settings.evaluation_strategy, settings.eval_steps or settings.logging_steps, state.step, step.ends_epoch, last)
        if evaluates:
            line = run_evaluation(task, state, log, progress)
            _note_best(state, line, settings, eligible=saves or last or not settings.load_best_model_at_end)
        if evaluates or last:
            take_samples(task, state, log, progress)
        stop = asked()
        if saves or stop:
            _save(task, state, settings, [*carried, *window], progress)
        if stop:
            everywhere(task.topology, True)  # the checkpoint is whole before any process ends
            raise Stopped(f"stopped after step {state.step} of {total}, which is saved; go on with --resume_from_checkpoint true", stop)
        window_start += time.perf_counter() - pause
    if settings.load_best_model_at_end and state.best_step not in (None, state.step):
        load_trained(task.policy, output_dir / f"checkpoint-{state.best_step}")
        progress.say(f"the final model is that of step {state.best_step}, eval {settings.metric_for_best_model} {state.best_metric:.4f}")
    return state


def step_gradients(task: Task, settings: TrainingArguments, batches: Sequence[Batch], done: int) -> Sums:
    """The sums of the step after ``done`` steps, whose gradients are left in the policy's parameters."""
    return accumulate_gradients(
        task.policy,
        batches,
        task.objective,
        task.precision,
        settings.recompute,
        task.topology,
        task.chain,
        task.sharding,
        draw=(settings.seed, done),
    )


def update(task: Task, settings: TrainingArguments, sums: Sums, rate: float) -> float:
    """Update the weights by their gradients, unless these or the step's loss are not finite. Returns the gradient's norm."""
    finite = math.isfinite(sums.means()["loss"])
    return apply_gradients(task.policy, task.optimizer, task.precision, rate, settings.max_grad_norm, task.topology, task.sharding, finite)


def rate_of(settings: TrainingArguments, done: int, total: int) -> float:
    """The learning rate of the step after ``done`` steps of ``total``."""
    warmup = settings.warmup_steps if settings.warmup_steps > 0 else math.ceil(total * settings.warmup_ratio)
    return learning_rate_at(done, total, settings.learning_rate, warmup, settings.lr_scheduler_type, settings.min_learning_rate)


def run_evaluation(task: Task, state: TrainState, log: RunLog, progress: Progress) -> dict[str, float]:
    """Evaluate on the dev rows, log the line and return it; names bear "eval_"."""
    start = time.perf_counter()
    sums = evaluate(task.policy, task.dev_batches(), task.dev_objective, task.precision, task.topology, task.chain)
    seconds = time.perf_counter() - start
    line = {"step": state.step, "epoch": round(state.epoch, 4), **{f"eval_{name}": value for name, value in sums.means().items()}}
    line["eval_tokens_per_second"] = round(sums.tokens / seconds, 1)
    progress.show(line)
    log.write(line)
    return line


def take_samples(task: Task, state: TrainState, log: RunLog, progress: Progress) -> None:
    """Let the policy answer the prompts, where that is asked for, and log what comes of it."""
    if task.sample is None:
        return
    metrics, shown = task.sample(state.step)
    for line in shown:
        progress.say(line)
    log.write({"step": state.step, "epoch": round(state.epoch, 4), **metrics})


def _train_line(sums: Sums, state: TrainState, rate: float, norm: float) -> dict[str, float]:
    """Means over the steps since the last line; the gradient's norm is the last step's."""
    return {
        "step": state.step,
        "epoch": round(state.epoch, 4),
        **sums.means(),
        "learning_rate": rate,
        "grad_norm": norm,
        "tokens": state.tokens,
        "examples": state.examples,
        "padding": round(sums.padding / (sums.tokens + sums.padding), 4),
        **({"skipped_steps": state.skipped} if state.skipped else {}),
    }


def _speed(sums: Sums, seconds: float) -> dict[str, float]:
    """What was done in a second."""
    return {"tokens_per_second": round(sums.tokens / seconds, 1), "examples_per_second": round(sums.examples / seconds, 3)}


def _is_due(strategy: str, every: int, step: int, ends_epoch: bool, last: bool) -> bool:
    """Whether something of this strategy happens after this step."""
    if strategy == "steps":
        return step % every == 0
    return strategy == "epoch" and (ends_epoch or last)


def _note_best(state: TrainState, line: dict[str, float], settings: TrainingArguments, eligible: bool) -> None:
    """Keep the best evaluation so far in the state. eligible: whether these weights could be gone back to, so may be called the best."""
    names = [f"eval_{name}" for name in METRIC_NAMES[settings.metric_for_best_model]]
    value = next(line[name] for name in names if name in line)
    greater = settings.greater_is_better if settings.greater_is_better is not None else settings.metric_for_best_model != "loss"
    worst = -math.inf if greater else math.inf
    # A value that is not a number is never a gain.
    gain = (value - (worst if state.best_metric is None else state.best_metric)) * (1 if greater else -1)
    state.stale_evaluations = 0 if gain > settings.early_stopping_threshold else state.stale_evaluations + 1
    if eligible and gain > 0:
        state.best_metric, state.best_step = value, state.step


def _save(task: Task, state: TrainState, settings: TrainingArguments, unlogged: Sequence[Sums], progress: Progress) -> None:
    """Write a checkpoint, then let the oldest go. unlogged: sums since the last line of the run log."""
    output_dir = Path(settings.output_dir)
    state.window = asdict(add_up(unlogged)) if unlogged else None
    state.scaler = task.precision.scaler_state()
    path = save_checkpoint(output_dir, task.policy, task.optimizer, state, task.side_files, task.topology, task.sharding, task.moving)
    if task.topology.is_main:
        prune_checkpoints(output_dir, settings.save_total_limit, state.best_step if settings.load_best_model_at_end else None)
    progress.say(f"saved {path}")
