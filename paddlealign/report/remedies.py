"""What helps: keys and values to try, each where a run's other arguments leave room for it. Pure functions.

Each returns one try or none; a try is the keys that are set together, and their values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paddlealign.arguments.losses import LOSSES, UNPAIRED_LOSSES

Try = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """What a rule may know of a run beside its log. total_steps: of the whole run. arguments: effective values by key."""

    command: str
    total_steps: int
    arguments: Mapping[str, Any]


def _names(run: Run) -> list[str]:
    """The losses of a DPO run; of others none."""
    return run.arguments["loss_type"].split(",") if "loss_type" in run.arguments else []


def unpaired(run: Run) -> bool:
    """Whether the run trains on labelled rows, not pairs."""
    return any(name in UNPAIRED_LOSSES for name in _names(run))


def reads(run: Run, key: str) -> bool:
    """Whether one of the run's losses reads this key."""
    return any(key in {**LOSSES, **UNPAIRED_LOSSES}[name].reads for name in _names(run))


def slower(run: Run, times: float = 2) -> list[Try]:
    """A lower learning rate."""
    return [{"learning_rate": float(f"{run.arguments['learning_rate'] / times:.2g}")}]


def closer(run: Run) -> list[Try]:
    """A stronger pull towards the reference, where one of the losses has it."""
    return [{"beta": 2 * run.arguments["beta"]}] if reads(run, "beta") else []


def more_of_chosen(run: Run) -> list[Try]:
    """More weight on the chosen answers' own likelihood."""
    if unpaired(run):
        return [{"desirable_weight": 2 * run.arguments["desirable_weight"]}]
    return [{"sft_loss_ratio": 2 * run.arguments["sft_loss_ratio"] or 1.0}]


def other_loss(run: Run, name: str) -> list[Try]:
    """Another loss in place of one over the difference of log-ratios, where the run's other keys allow it."""
    alone = [LOSSES[it].compares for it in _names(run) if it in LOSSES and it != name] == ["difference"]
    plain = not run.arguments["reference_free"] and run.arguments["f_divergence_type"] == "reverse_kl"
    return [{"loss_type": name}] if alone and plain else []


def shorter(run: Run, step: int | None = None, epoch: float | None = None) -> list[Try]:
    """Fewer steps: as many as at the best evaluation, or half of the epochs where there is none."""
    if run.arguments["max_steps"] > 0:
        return [{"max_steps": step or max(run.total_steps // 2, 1)}]
    return [{"num_train_epochs": float(f"{epoch or run.arguments['num_train_epochs'] / 2:.2g}")}]


def smoother(run: Run) -> list[Try]:
    """Room for pairs whose order is wrong, so that margins need not grow without end."""
    return [{"label_smoothing": 0.1}] if reads(run, "label_smoothing") and run.arguments["label_smoothing"] == 0 else []


def discounted(run: Run) -> list[Try]:
    """Less weight on the tokens by which the longer answer of a pair is longer."""
    return [{"ld_alpha": 0.5}] if run.arguments["ld_alpha"] == 1 and not unpaired(run) else []


def keeping_best(run: Run) -> list[Try]:
    """The model of the best evaluation in place of the last one."""
    strategy, every = run.arguments["evaluation_strategy"], run.arguments["eval_steps"]
    saves = {"save_strategy": strategy, **({"save_steps": every} if strategy == "steps" else {})}
    return [] if run.arguments["load_best_model_at_end"] or strategy == "no" else [{"load_best_model_at_end": True, **saves}]


def warmer(run: Run) -> list[Try]:
    """A warm-up, where there is none."""
    if run.arguments["warmup_steps"] or run.arguments["warmup_ratio"]:
        return []
    constant = run.arguments["lr_scheduler_type"] == "constant"
    return [{"warmup_ratio": 0.1, **({"lr_scheduler_type": "constant_with_warmup"} if constant else {})}]


def clipped(run: Run) -> list[Try]:
    """A limit for the gradient, where there is none."""
    return [] if run.arguments["max_grad_norm"] else [{"max_grad_norm": 1.0}]
