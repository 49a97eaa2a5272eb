"""A run's curves as one picture."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_TRAIN, _DEV, _SECOND = "#2563eb", "#dc2626", "#d97706"
# A panel: its title, the metrics drawn in it with their label and colour.
_PANELS = {
    "loss": [("loss", "train", _TRAIN), ("eval_loss", "dev", _DEV)],
    "accuracy": [("accuracy", "train", _TRAIN), ("eval_accuracy", "dev", _DEV)],
    "answers ranked right": [("rewards/accuracies", "train", _TRAIN), ("eval_rewards/accuracies", "dev", _DEV)],
    "margin": [("margin", "train", _TRAIN), ("eval_margin", "dev", _DEV)],
    "mean reward": [("mean_reward", "train", _TRAIN), ("eval_mean_reward", "dev", _DEV)],
    "cross-entropy of chosen answers": [("nll_loss", "train", _TRAIN), ("eval_nll_loss", "dev", _DEV)],
    "reward margin": [("rewards/margins", "train", _TRAIN), ("eval_rewards/margins", "dev", _DEV)],
    "rewards": [("rewards/chosen", "chosen", _TRAIN), ("rewards/rejected", "rejected", _SECOND)],
    "length of sampled answers, tokens": [("samples/length", "policy", _DEV)],
    "reward of sampled answers": [("samples/score", "policy", _DEV)],
    "answers that the judge prefers to the reference's": [("samples/judge", "policy", _DEV)],
    "gradient norm": [("grad_norm", "before clipping", _TRAIN)],
    "learning rate": [("learning_rate", "", _TRAIN)],
}


def draw_curves(metrics: list[dict[str, Any]], path: Path, title: str) -> bool:
    """Draw every panel that the metrics have values for. Returns whether there was anything to draw."""
    panels = {name: curves for name, curves in _PANELS.items() if any(key in line for line in metrics for key, _, _ in curves)}
    if not panels:
        return False
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    # A Figure of its own, without pyplot: no window, no global state.
    figure = Figure(figsize=(4.4 * columns, 3.1 * rows), layout="constrained")
    flat = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, (name, curves) in zip(flat, panels.items(), strict=False):
        _draw_panel(axis, name, curves, metrics)
    for axis in flat[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)
    return True


def _draw_panel(axis: Axes, name: str, curves: list[tuple[str, str, str]], metrics: list[dict[str, Any]]) -> None:
    """Draw the curves of one panel over optimizer steps."""
    for key, label, colour in curves:
        points = [(line["step"], line[key]) for line in metrics if line.get(key) is not None]
        if points:
            steps, values = zip(*points, strict=True)
            axis.plot(steps, values, color=colour, label=label, linewidth=1.6, marker="o" if len(points) < 12 else None, markersize=3)
    axis.set_title(name, fontsize=10)
    axis.set_xlabel("step", fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.25)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    if len(axis.lines) > 1:
        axis.legend(fontsize=8, frameon=False)
