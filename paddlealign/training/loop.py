"""The training loop: batches in, weights, checkpoints and a run log out. It reads from top to bottom."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from paddlealign.arguments.fields import TrainingArguments
from paddlealign.data.example import Batch
from paddlealign.errors import Stopped
from paddlealign.parallel.collect import everywhere, gather_values
from paddlealign.training.checkpoint import TrainState, load_trained, save_checkpoint
from paddlealign.training.guard import BAD_NUMBERS_CODE, Guard
from paddlealign.training.manifest import find_damage
from paddlealign.training.moving_reference import follow
from paddlealign.training.optimizer import learning_rate_at
from paddlealign.training.peak_memory import peak_memory_gib
from paddlealign.training.progress import Progress
from paddlealign.training.run_folder import prune_checkpoints
from paddlealign.training.run_log import RunLog
from paddlealign.training.step import Sums, accumulate_gradients, add_up, apply_gradients, evaluate
from paddlealign.training.task import Task

# What metric_for_best_model's short names mean; of DPO's rewards the names stand last.
METRIC_NAMES = {"loss": ("loss",), "accuracy": ("accuracy", "rewards/accuracies"), "margin": ("margin", "rewards/margins")}


def fit(
    task: Task, settings: TrainingArguments, state: TrainState, log: RunLog, progress: Progress, asked: Callable[[], int] = lambda: 0
) -> TrainState:
    """Train from ``state`` to the end of the feed, or until early stopping. Returns the last state.

    asked: whether to stop with a checkpoint, as the exit code to end with, or 0 to go on; the same in all processes, which call it together
    after each step and between the batches of an evaluation; an evaluation that is left is done at the resume. Raises Stopped
    after that checkpoint, and where a step's loss or gradient is not finite (``on_bad_numbers``), after one of before that step.
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
        progress.say(
            f"the best checkpoint so far, of step {state.best_step}, is not in {output_dir}; the best one is chosen from here on",
            warns=True,
        )
        state.best_metric = state.best_step = None
    if state.owes:
        stop = _look(task, settings, state, log, progress, asked)
        if stop:
            if everywhere(task.topology, not (output_dir / f"checkpoint-{state.step}").is_dir()):  # it lies in another run's folder
                _save(task, state, settings, log, carried, progress)
            _stop(task, state, stop)
        window_start = time.perf_counter()
    if state.step:  # an earlier start may have been killed between a checkpoint and this
        _let_old_go(task, state, settings, output_dir, progress)
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
                _save(task, state, settings, log, [*carried, *window], progress)
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
            line |= _speed(add_up(window), time.perf_counter() - window_start) | {"memory_gib": peak_memory_gib()}
            progress.show(line)
            log.write(line)
            carried, window, window_start = [], [], time.perf_counter()
        pause = time.perf_counter()
        stop = _look(task, settings, state, log, progress, asked) or asked()
        if stop or _saves(settings, state, total):
            _save(task, state, settings, log, [*carried, *window], progress)
        if stop:
            _stop(task, state, stop)
        window_start += time.perf_counter() - pause
    if settings.load_best_model_at_end and state.best_step not in (None, state.step):
        _load_best(task, settings, state, progress)
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


def _look(task: Task, settings: TrainingArguments, state: TrainState, log: RunLog, progress: Progress, asked: Callable[[], int]) -> int:
    """The evaluation and the answers that are due after the step just taken.

    Returns what ``asked`` says where they were left undone because of it, which the state then tells; else 0.
    """
    last = state.step == task.feed.total_steps
    evaluates = _is_due(settings.evaluation_strategy, settings.eval_steps or settings.logging_steps, state, last)
    if not evaluates and not last:
        return 0
    state.owes = True
    stop = asked()
    if stop:
        return stop
    if evaluates:
        try:
            line = run_evaluation(task, state, log, progress, asked)
        except _Interrupted as interrupted:
            return interrupted.code
        saves = _saves(settings, state, task.feed.total_steps)
        _note_best(state, line, settings, eligible=saves or last or not settings.load_best_model_at_end)
    take_samples(task, state, log, progress)
    state.owes = False
    return 0


class _Interrupted(Exception):  # noqa: N818 - it is no error
    """An evaluation was left because the run is to stop. code: the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _until_asked(batches: Iterable[Batch], asked: Callable[[], int]) -> Iterator[Batch]:
    """The batches, of which every process has as many; between two of them all look whether to stop."""
    for batch in batches:
        code = asked()
        if code:
            raise _Interrupted(code)
        yield batch


def _stop(task: Task, state: TrainState, code: int) -> None:
    """End the run, once the checkpoint is whole for all processes."""
    everywhere(task.topology, True)
    raise Stopped(
        f"stopped after step {state.step} of {task.feed.total_steps}, which is saved; go on with --resume_from_checkpoint true", code
    )


def _load_best(task: Task, settings: TrainingArguments, state: TrainState, progress: Progress) -> None:
    """Put the best checkpoint's weights into the policy, unless they are no longer what was written."""
    folder = Path(settings.output_dir) / f"checkpoint-{state.best_step}"
    damage = gather_values(task.topology.everyone, find_damage(folder) if task.topology.is_main else [])[0]
    if damage:
        progress.say(f"note: the best checkpoint, {folder}, is damaged: {'; '.join(damage)}. The final model is that of the last step")
        return
    load_trained(task.policy, folder)
    progress.say(f"the final model is that of step {state.best_step}, eval {settings.metric_for_best_model} {state.best_metric:.4f}")


def run_evaluation(
    task: Task, state: TrainState, log: RunLog, progress: Progress, asked: Callable[[], int] = lambda: 0
) -> dict[str, float]:
    """Evaluate on the dev rows, log the line and return it; names bear "eval_". asked: see ``fit``; where it asks, nothing is logged."""
    start = time.perf_counter()
    batches = _until_asked(task.dev_batches(), asked)
    margins: dict[str, np.ndarray] = {}
    sums = evaluate(task.policy, batches, task.dev_objective, task.precision, task.topology, task.chain, margins)
    seconds = time.perf_counter() - start
    line = {"step": state.step, "epoch": round(state.epoch, 4), **{f"eval_{name}": value for name, value in sums.means().items()}}
    line["eval_tokens_per_second"] = round(sums.tokens / seconds, 1)
    progress.show(line)
    if task.keep_margins:
        task.keep_margins(state.step, margins)
    log.write(line)
    return line


def take_samples(task: Task, state: TrainState, log: RunLog, progress: Progress) -> None:
    """Let the policy answer the prompts, where that is asked for, and log what comes of it."""
    if task.sample is None:
        return
    metrics, told, shown = task.sample(state.step)
    if told:
        progress.say(told)
    for line in shown:
        progress.say(line, as_it_stands=True)
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


def _saves(settings: TrainingArguments, state: TrainState, total: int) -> bool:
    return _is_due(settings.save_strategy, settings.save_steps, state, state.step == total)


def _is_due(strategy: str, every: int, state: TrainState, last: bool) -> bool:
    """Whether something of this strategy happens after the step just taken."""
    if strategy == "steps":
        return state.step % every == 0
    return strategy == "epoch" and (state.epoch.is_integer() or last)


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


def _save(task: Task, state: TrainState, settings: TrainingArguments, log: RunLog, unlogged: Sequence[Sums], progress: Progress) -> None:
    """Write a checkpoint, then let the oldest go. unlogged: sums since the last line of the run log."""
    output_dir = Path(settings.output_dir)
    state.window = asdict(add_up(unlogged)) if unlogged else None
    state.scaler = task.precision.scaler_state()
    remark = task.lock.take() if task.lock else None
    if remark:
        progress.say(f"note: {remark}")
    log.sync()
    path = save_checkpoint(
        output_dir,
        task.policy,
        task.optimizer,
        state,
        task.side_files,
        task.topology,
        task.sharding,
        task.moving,
        task.run_file,
    )
    progress.say(f"saved {path}")
    _let_old_go(task, state, settings, output_dir, progress)


def _let_old_go(task: Task, state: TrainState, settings: TrainingArguments, output_dir: Path, progress: Progress) -> None:
    """Keep as many checkpoints as save_total_limit says."""
    if task.topology.is_main:
        best = state.best_step if settings.load_best_model_at_end else None
        failure = prune_checkpoints(output_dir, settings.save_total_limit, best)
        if failure:
            progress.say(f"note: {failure}")
