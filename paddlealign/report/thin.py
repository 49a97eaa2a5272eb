"""Long curves as few points for the screen. Pure functions; the exact figures stay in metrics.jsonl."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GROUPS = 1000  # more than a screen has columns for one chart


@dataclass(frozen=True)
class Line:
    """A curve to draw. x, y: its points, steps rising. mean_x, mean_y: what is smoothed: of each group of points its last step and mean."""

    x: list[float]
    y: list[float]
    mean_x: list[float]
    mean_y: list[float]


def thin(steps: Sequence[float], values: Sequence[float], groups: int = GROUPS) -> Line:
    """A curve with at most ``2 * groups + 2`` points: the lowest and the highest of each group, in order, and the first and the last.

    So no spike is lost. steps, values: float [points]; points whose value is not finite are left out. Figures have 6 digits.
    """
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(y) <= 2 * groups:
        plain = _plain(x), _plain(y)
        return Line(*plain, *plain)
    edges = np.linspace(0, len(y), groups + 1).astype(np.int64)
    starts = edges[:-1]
    kept = {0, len(y) - 1}
    for start, end in zip(starts.tolist(), edges[1:].tolist(), strict=True):
        part = y[start:end]
        kept |= {start + int(part.argmin()), start + int(part.argmax())}
    places = np.array(sorted(kept))
    means = np.add.reduceat(y, starts) / np.diff(edges)
    return Line(_plain(x[places]), _plain(y[places]), _plain(x[edges[1:] - 1]), _plain(means))


def _plain(values: np.ndarray) -> list[float]:
    return [digits(value) for value in values.tolist()]


def digits(value: float) -> float:
    """A figure with 6 digits; whole numbers stay whole, which is shorter in JSON."""
    if not math.isfinite(value):
        raise ValueError("only finite figures are drawn")
    return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.6g}")
