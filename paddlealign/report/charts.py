"""Which curves a run's page shows, in which charts, and their points. Pure functions of what the run log holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddlealign.report.run_files import RunFiles
from paddlealign.report.thin import GROUPS, thin

TRAIN, DEV = "training rows", "dev rows"
# Figures that say how far a run is, not how it goes.
_COUNTERS = {"step", "epoch", "tokens", "examples", "examples_per_second", "eval_tokens_per_second"}


@dataclass(frozen=True)
class Curve:
    """metric: its name in metrics.jsonl. label: in the legend. role: which colour it has among the curves of its chart.

    dev: whether it is of the dev rows. side: 1 of rejected answers, else 0; where several runs share a chart, colours tell the runs.
    """

    metric: str
    label: str
    role: int
    dev: bool = False
    side: int = 0


@dataclass(frozen=True)
class Panel:
    """A chart. unit: of its figures, and what a reader must know of them."""

    title: str
    unit: str
    curves: tuple[Curve, ...]


def _both(metric: str) -> tuple[Curve, ...]:
    """The same figure of the training rows and of the dev rows."""
    return Curve(metric, TRAIN, 0), Curve(f"eval_{metric}", DEV, 1, dev=True)


def _sides(metric: str) -> tuple[Curve, ...]:
    """The same figure of chosen and rejected answers."""
    return (
        Curve(f"{metric}/chosen", "chosen", 0),
        Curve(f"{metric}/rejected", "rejected", 1, side=1),
        Curve(f"eval_{metric}/chosen", "chosen, dev rows", 0, dev=True),
        Curve(f"eval_{metric}/rejected", "rejected, dev rows", 1, dev=True, side=1),
    )


PANELS = (
    Panel("Loss", "nats", _both("loss")),
    Panel("Reward margin", "chosen less rejected", _both("rewards/margins")),
    Panel("Rewards", "of chosen and rejected answers", _sides("rewards")),
    Panel("Pairs ranked right", "share", _both("rewards/accuracies")),
    Panel("Log-probs", "nats a whole answer", _sides("logps")),
    Panel("Margin", "reward of chosen less rejected", _both("margin")),
    Panel("Accuracy", "share ranked or predicted right", _both("accuracy")),
    Panel("Mean reward", "of all answers", _both("mean_reward")),
    Panel("Cross-entropy of chosen answers", "nats a token", _both("nll_loss")),
    Panel("KL estimate", "nats", _both("kl")),
    Panel("Sampled answers: length", "tokens", (Curve("samples/length", "policy", 1),)),
    Panel("Sampled answers: reward", "mean score", (Curve("samples/score", "policy", 1),)),
    Panel("Sampled answers: preferred", "share that the judge prefers to the reference's", (Curve("samples/judge", "policy", 1),)),
    Panel("Gradient norm", "before clipping", (Curve("grad_norm", "gradient norm", 0),)),
    Panel("Learning rate", "", (Curve("learning_rate", "learning rate", 0),)),
    Panel("Speed", "tokens a second", (Curve("tokens_per_second", "tokens a second", 0),)),
    Panel("Padding", "share of positions without a token", (Curve("padding", "padding", 0),)),
    Panel("Memory", "GiB at most so far, process 0", (Curve("memory_gib", "memory", 0),)),
)


def panels_for(names: set[str]) -> list[Panel]:
    """The charts for these metrics; one that stands in no chart has a chart of its own, behind the others."""
    shown = [panel for panel in PANELS if any(curve.metric in names for curve in panel.curves)]
    known = _COUNTERS | {curve.metric for panel in PANELS for curve in panel.curves}
    bare = sorted({name.removeprefix("eval_") for name in names - known})
    return shown + [Panel(name, "", _both(name)) for name in bare]


def charts_of(runs: Sequence[RunFiles]) -> list[dict[str, Any]]:
    """The charts of one run or of several, over steps: {title, unit, curves: [{run, label, role, dev, side, x, y, mean_x, mean_y}]}.

    run: number of the run. mean_x, mean_y: see ``Line``; left out where they are x and y.
    """
    groups = max(GROUPS // len(runs), 100)
    charts = []
    for panel in panels_for({name for run in runs for name in run.columns}):
        curves = []
        for number, run in enumerate(runs):
            for curve in panel.curves:
                column = run.columns.get(curve.metric)
                line = thin(column.steps, column.values, groups) if column else None
                if line and line.x:
                    points = {"x": line.x, "y": line.y}
                    means = {} if line.mean_x == line.x else {"mean_x": line.mean_x, "mean_y": line.mean_y}
                    look = {"label": curve.label, "role": curve.role, "dev": curve.dev, "side": curve.side}
                    curves.append({"run": number, **look, **points, **means})
        if curves:
            charts.append({"title": panel.title, "unit": panel.unit, "curves": curves})
    return charts


def lost_points(run: RunFiles) -> dict[str, int]:
    """How many values of each metric were not finite, which metrics.jsonl has as null; they are not drawn."""
    lost = {name: int(np.isnan(column.values).sum()) for name, column in run.columns.items()}
    return {name: count for name, count in lost.items() if count}
