"""The rules by which a run's curves are read: what each looks for in the rows of the run log, and which keys help. Pure functions.

docs/curves.md tells them to users; `tests/unit/test_watch.py` triggers each.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from paddlealign.report.curve_statistics import (
    DEV_SURE,
    FIRST,
    LEAST_ROWS,
    TRAIN_SURE,
    Curves,
    evaluation_turn,
    fall_since,
    noise,
    shift,
    turn,
    window_of,
)
from paddlealign.report.remedies import (
    Run,
    Try,
    clipped,
    closer,
    discounted,
    keeping_best,
    more_of_chosen,
    other_loss,
    shorter,
    slower,
    smoother,
    warmer,
)

LOST_SHARE = 0.05  # of the chosen answers' log-prob
MARGIN_GAIN, CHOSEN_SHARE = 0.5, 0.05  # in units of reward; of the margin
SATURATED, SATURATED_PAIRS, EARLY = 0.98, 200, 1 / 3
DEV_RISE, TRAIN_FALL = 0.05, 0.05  # of the loss
LOSS_RISE = 0.1  # of the lowest loss
LEAST_RISE = 0.01  # of any loss
CLIPPED_SHARE, CLIPPED_BY, CLIPPED_ROWS = 0.95, 3.0, 20
OFFSET = 2.0  # in units of reward
SKIPPED, SKIPPED_ROWS = 3, 30
LONGER, LEAST_SAMPLES = 1.25, 6


@dataclass(frozen=True)
class Figure:
    """A figure that shows a finding. name: of the metric. before, now: from .. to."""

    name: str
    before: float
    now: float


@dataclass(frozen=True)
class Sign:
    """What a rule saw, and what helps under this run's arguments, each to be tried alone."""

    figures: tuple[Figure, ...]
    tries: tuple[Try, ...]


@dataclass(frozen=True)
class Rule:
    """A pattern in the curves. commands: whose runs it is for. look: at the curves so far. meaning: in plain words, one sentence."""

    name: str
    commands: tuple[str, ...]
    look: Callable[[Curves, Run], Sign | None]
    meaning: str


def chosen_less_likely(curves: Curves, run: Run) -> Sign | None:
    """The chosen answers' reward falls by a share of their log-prob, while the margin rises."""
    values = curves.table("rewards/chosen", "rewards/margins", "logps/chosen")
    start = _first_reward(run)
    chosen, margin, logps = shift(values[:, 0], start), shift(values[:, 1], start), shift(values[:, 2])
    if chosen is None or margin is None or logps is None or margin.change <= 0:
        return None
    # Without a reference rewards are log-probs themselves.
    size = chosen.before if run.arguments["reference_free"] else run.arguments["beta"] * logps.before
    if chosen.change >= 0 or -chosen.change < LOST_SHARE * abs(size):
        return None
    figures = (
        Figure("logps/chosen", logps.before, logps.now),
        Figure("rewards/chosen", chosen.before, chosen.now),
        Figure("rewards/margins", margin.before, margin.now),
    )
    return Sign(figures, (*more_of_chosen(run), *other_loss(run, "dpop"), *slower(run), *closer(run)))


def _first_reward(run: Run) -> float | None:
    """DPO's rewards begin at 0 where the policy begins as the reference. Others are log-probs, or those against another model."""
    model, reference, adapter = (run.arguments[key] for key in ("model_name_or_path", "ref_model_name_or_path", "lora_path"))
    other = reference is not None and (reference != model or adapter is not None)
    return None if run.arguments["reference_free"] or other else 0.0


def margin_from_rejected(curves: Curves, run: Run) -> Sign | None:
    """The margin rises, and the rejected answers' falling reward is all of it."""
    values = curves.table("rewards/chosen", "rewards/rejected", "rewards/margins")
    chosen, rejected, margin = (shift(column, _first_reward(run)) for column in values.T)
    if chosen is None or rejected is None or margin is None or margin.change < MARGIN_GAIN or rejected.change >= 0:
        return None
    if chosen.now - chosen.before > CHOSEN_SHARE * margin.change:
        return None
    figures = tuple(
        Figure(f"rewards/{name}", it.before, it.now) for name, it in (("margins", margin), ("chosen", chosen), ("rejected", rejected))
    )
    return Sign(figures, (*more_of_chosen(run), *other_loss(run, "apo_zero")))


def accuracy_saturated(curves: Curves, run: Run) -> Sign | None:
    """Nearly all pairs of the newest rows are ranked right, early in the run."""
    name = "accuracy" if run.command == "reward" else "rewards/accuracies"
    values = curves.table("step", "examples", name)
    pairs = np.diff(values[:, 1], prepend=0.0)
    newest, weights = values[::-1, 2], pairs[::-1]
    rows_needed = max(window_of(len(values)), int(np.searchsorted(np.cumsum(weights), SATURATED_PAIRS)) + 1)
    if rows_needed > len(values) or values[-1, 0] > EARLY * run.total_steps:
        return None
    now = float(np.average(newest[:rows_needed], weights=weights[:rows_needed]))
    if now < SATURATED:
        return None
    return Sign((Figure(name, float(values[0, 2]), now),), (*shorter(run), *slower(run), *smoother(run)))


def overfitting(curves: Curves, run: Run) -> Sign | None:
    """The loss on dev rows rises while the training loss falls."""
    dev, train = curves.table("step", "epoch", "eval_loss"), curves.table("step", "loss")
    found = evaluation_turn(dev[:, 2])
    if found is None or not found.sure or found.now - found.lowest < max(DEV_RISE * abs(found.lowest), LEAST_RISE):
        return None
    best_step, best_epoch = dev[found.at, :2]
    loss = fall_since(train[:, 1], int(np.searchsorted(train[:, 0], best_step, side="right")) - 1)
    if loss is None or not loss.sure or loss.now > (1 - TRAIN_FALL) * loss.before:
        return None
    tries = (*shorter(run, int(best_step), float(best_epoch)), *keeping_best(run), *slower(run))
    return Sign((Figure("eval_loss", found.lowest, found.now), Figure("loss", loss.before, loss.now)), tries)


def loss_rising(curves: Curves, run: Run) -> Sign | None:
    """The training loss rises from its lowest."""
    losses = curves.table("loss")[:, 0]
    found = turn(losses, window_of(len(losses)), TRAIN_SURE) if len(losses) >= LEAST_ROWS else None
    if found is None or not found.sure or found.now - found.lowest < max(LOSS_RISE * abs(found.lowest), LEAST_RISE):
        return None
    return Sign((Figure("loss", found.lowest, found.now),), (*slower(run, 5), *warmer(run), *clipped(run)))


def gradient_clipped(curves: Curves, run: Run) -> Sign | None:
    """After half of the run nearly every logged step's gradient is still cut to a small part of itself."""
    values, limit = curves.table("step", "grad_norm"), run.arguments["max_grad_norm"]
    late = values[values[:, 0] > run.total_steps / 4, 1]
    newest = late[-max(CLIPPED_ROWS, len(late) // 4) :]
    if not limit or len(newest) < CLIPPED_ROWS or values[-1, 0] < run.total_steps / 2:
        return None
    now = float(np.median(newest))
    if np.mean(newest > limit) < CLIPPED_SHARE or now < CLIPPED_BY * limit:
        return None
    figure = Figure("grad_norm", float(np.median(values[:FIRST, 1])), now)
    return Sign((figure,), ({"max_grad_norm": float(f"{2 * now:.2g}")}, *slower(run)))


def steps_skipped(curves: Curves, run: Run) -> Sign | None:
    """Under float16 gradients overflow again and again, and those steps change nothing."""
    lost = ~np.isfinite(curves.column("grad_norm"))
    before, now = float(lost[:SKIPPED_ROWS].sum()), float(lost[-SKIPPED_ROWS:].sum())
    if not run.arguments["fp16"] or len(lost) < 2 * SKIPPED_ROWS or now < SKIPPED:
        return None
    figure = Figure(f"overflows in {SKIPPED_ROWS} logged steps", before, now)
    return Sign((figure,), ({"fp16": False, "bf16": True}, *slower(run)))


def rewards_drift(curves: Curves, run: Run) -> Sign | None:
    """The mean of all rewards leaves zero by more than chosen and rejected answers differ."""
    mean, margin = (shift(column) for column in curves.table("mean_reward", "margin").T)
    if mean is None or margin is None or not mean.change or abs(mean.now) < max(OFFSET, abs(mean.before), margin.now):
        return None
    figures = (Figure("mean_reward", mean.before, mean.now), Figure("margin", margin.before, margin.now))
    return Sign(figures, ({"center_rewards_coefficient": 10 * run.arguments["center_rewards_coefficient"] or 0.01},))


def answers_lengthen(curves: Curves, run: Run) -> Sign | None:
    """Sampled answers grow longer from evaluation to evaluation."""
    values = curves.table("samples/length")[:, 0]
    found = shift(values, least=LEAST_SAMPLES, window=max(len(values) // 4, 3))
    if found is None or found.change <= 0 or found.now < LONGER * found.before:
        return None
    return Sign((Figure("samples/length", found.before, found.now),), (*discounted(run), *other_loss(run, "sigmoid_norm"), *closer(run)))


def score_and_judge_apart(curves: Curves, run: Run) -> Sign | None:
    """The reward model's score of sampled answers still rises where the judge's falls."""
    values = curves.table("step", "epoch", "samples/score", "samples/judge")
    if len(values) < LEAST_SAMPLES:
        return None
    judge = evaluation_turn(-values[:, 3])
    if judge is None or not judge.sure:
        return None
    scores, at = values[:, 2], judge.at
    before, now = float(np.median(scores[at - 1 : at + 2])), float(np.median(scores[-3:]))
    if now - before <= DEV_SURE * noise(scores):
        return None
    figures = (Figure("samples/score", before, now), Figure("samples/judge", -judge.lowest, -judge.now))
    return Sign(figures, (*shorter(run, int(values[at, 0]), float(values[at, 1])), *closer(run), *slower(run)))


_ALL = ("sft", "reward", "dpo")
RULES = (
    Rule(
        "chosen-less-likely",
        ("dpo",),
        chosen_less_likely,
        "The model moves away from the chosen answers too, only less than from the rejected ones; what it writes instead is in neither.",
    ),
    Rule(
        "margin-from-rejected",
        ("dpo",),
        margin_from_rejected,
        "The model learns what not to write: the whole margin comes from rejected answers, and chosen ones have become no likelier.",
    ),
    Rule(
        "accuracy-saturated",
        ("reward", "dpo"),
        accuracy_saturated,
        "Nearly all pairs are ranked right already; the rest of the run only widens margins, and may wear off what the model could do.",
    ),
    Rule("overfitting", _ALL, overfitting, "The model learns the training rows by heart, and gets worse at rows that it has not seen."),
    Rule("loss-rising", _ALL, loss_rising, "The updates are too large: the model undoes what it had learned."),
    Rule(
        "gradient-clipped",
        _ALL,
        gradient_clipped,
        "Every step's gradient is cut down to one length: a bad batch counts as much as any other, and the limit protects from nothing.",
    ),
    Rule("steps-skipped", _ALL, steps_skipped, "float16 overflows again and again; those steps' rows are read and change nothing."),
    Rule(
        "rewards-drift",
        ("reward",),
        rewards_drift,
        "All rewards move away from zero together, which the loss does not see; scores of different prompts or models cannot be compared.",
    ),
    Rule(
        "answers-lengthen",
        ("dpo",),
        answers_lengthen,
        "The model writes ever longer answers: length is often what tells chosen from rejected ones, and the easiest thing to learn.",
    ),
    Rule(
        "score-and-judge-apart",
        ("dpo",),
        score_and_judge_apart,
        "The model pleases the reward model in ways that the judge does not like: from here on it learns the reward model's mistakes.",
    ),
)
