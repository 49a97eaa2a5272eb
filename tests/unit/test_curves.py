"""The picture of a run's curves, rendered: every metric that a method logs is a curve of its own in it."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from paddlealign.report.curves import draw_curves

pytestmark = pytest.mark.pictures
LOGGED = {
    "sft": ["loss", "accuracy", "grad_norm", "learning_rate", "eval_loss", "eval_accuracy", "samples/length"],
    "reward": ["loss", "accuracy", "margin", "mean_reward", "eval_margin", "eval_mean_reward", "samples/score"],
    "dpo": ["loss", "nll_loss", "rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected", "samples/judge"],
}


@pytest.mark.parametrize("method", LOGGED)
def test_what_a_method_logs_is_drawn(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *words, **keys: (figures.append(figure), save(figure, *words, **keys)))
    steps = [2, 4, 6]
    lines = [{"step": step, **{name: step + place / 100 for place, name in enumerate(LOGGED[method])}} for step in steps]
    lines[1]["loss"] = None  # a step without a number
    assert draw_curves(lines, tmp_path / "curves.png", "SFT, output")
    drawn = (tmp_path / "curves.png").read_bytes()
    assert drawn.startswith(b"\x89PNG") and len(drawn) > 10_000
    (figure,) = figures
    found = sorted((list(line.get_xdata()), list(line.get_ydata())) for axis in figure.axes for line in axis.lines)
    kept = {name: [line for line in lines if line[name] is not None] for name in LOGGED[method]}
    assert found == sorted(([line["step"] for line in kept[name]], [line[name] for line in kept[name]]) for name in kept)


def test_without_a_metric_that_has_a_panel_nothing_is_drawn(tmp_path: Path) -> None:
    assert not draw_curves([{"step": 1, "tokens": 4}], tmp_path / "none.png", "") and not (tmp_path / "none.png").exists()
