"""A run's curves, and what can be said of a noisy one: how far it has moved, and whether that is more than its noise."""

import math
from array import array
from collections.abc import Mapping, MutableSequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# A move counts from so many standard errors on: it is looked for again and again while a run goes on, hence more than two or three.
TRAIN_SURE, DEV_SURE = 8.0, 4.0
LEAST_ROWS = 10
FIRST = 5  # points of the median that a curve began with
# So few evaluations do not show their own noise: the last two must both have gone the wrong way.
FEW_EVALUATIONS = 5


class Curves:
    """The rows of a run log so far, by metric."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.rows = 0
        # Arrays, not lists: a run may log a million rows.
        self._places: dict[str, MutableSequence[int]] = {}
        self._values: dict[str, MutableSequence[float]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one more row. None, which JSON has for a value that is not finite, counts as such."""
        for name, value in row.items():
            if name not in self._places:
                self._places[name], self._values[name] = array("q"), array("d")
            self._places[name].append(self.rows)
            self._values[name].append(math.nan if value is None else value)
        self.rows += 1

    def column(self, name: str) -> np.ndarray:
        """All values of a metric: float64 [rows that have it]."""
        return np.array(self._values.get(name, ()), np.float64)

    def table(self, *names: str) -> np.ndarray:
        """The rows that have all these metrics, finite: float64 [rows, names]."""
        places = [self._places.get(name, array("q")) for name in names]
        if all(it == places[0] for it in places):
            values = np.stack([self.column(name) for name in names], 1)
        else:
            shared = set(places[0]).intersection(*places)
            kept = [[place in shared for place in it] for it in places]
            values = np.stack([self.column(name)[mask] for name, mask in zip(names, kept, strict=True)], 1)
        return values[np.isfinite(values).all(1)]


@dataclass(frozen=True)
class Shift:
    """A curve's beginning and its median over the last points, and whether the difference is beyond noise."""

    before: float
    now: float
    sure: bool

    @property
    def change(self) -> float:
        """From before to now where it is sure, else 0."""
        return self.now - self.before if self.sure else 0.0


@dataclass(frozen=True)
class Turn:
    """A curve's lowest median so far, its last one, whether that is higher beyond noise, and which point was the lowest, from 0."""

    lowest: float
    now: float
    sure: bool
    at: int


def noise(values: np.ndarray) -> float:
    """Standard deviation of a curve's points about its trend.

    From the median of its second differences, whose variance is 6 times the points': a trend, a bend and single outliers hardly count.
    values: float64 [points], three at least.
    """
    return 1.4826 * float(np.median(np.abs(np.diff(values, 2)))) / math.sqrt(6)


def window_of(points: int) -> int:
    """So many points make one median: a fourth of them, 5 to 25."""
    return min(max(points // 4, FIRST), 25)


def shift(values: np.ndarray, start: float | None = None, least: int = LEAST_ROWS, window: int | None = None) -> Shift | None:
    """From the first points to the last ones; None where there are fewer than ``least``.

    values: float64 [points]. start: where the curve began, if that is known; otherwise the median of the first FIRST points, or of the
    first ``window``. window: how many points at the end; unset: see ``window_of``.
    """
    if len(values) < least:
        return None
    first, window = window or FIRST, window or window_of(len(values))
    before, now = float(np.median(values[:first])) if start is None else start, float(np.median(values[-window:]))
    return Shift(before, now, abs(now - before) > TRAIN_SURE * _error(values, window, first if start is None else math.inf))


def turn(values: np.ndarray, window: int, sure: float) -> Turn | None:
    """How far a curve that should fall has risen since its lowest; None where it has too few points.

    values: float64 [points]. window: points of one median; 1 for ``FEW_EVALUATIONS`` or less. sure: standard errors of a rise.
    """
    medians = np.median(np.lib.stride_tricks.sliding_window_view(values, window), axis=1) if len(values) >= 2 * window else values[:0]
    if len(medians) < 3:
        return None
    at = int(np.argmin(medians[: -max(window, 2)]))
    lowest, now = float(medians[at]), float(medians[-1])
    if window == 1:
        risen = bool(values[-1] > values[-2] > values[-3])
    else:
        risen = now - lowest > sure * _error(values, window, window)
    return Turn(lowest, now, risen, at + window // 2)


def evaluation_turn(values: np.ndarray) -> Turn | None:
    """``turn`` for what each evaluation gives one point of."""
    return turn(values, 1 if len(values) <= FEW_EVALUATIONS else 3, DEV_SURE)


def fall_since(values: np.ndarray, point: int) -> Shift | None:
    """From the points up to this one to the last ones; None where there are not three of each. values: float64 [points]."""
    window = min(window_of(len(values)), point + 1, len(values) - point - 1)
    if window < 3:
        return None
    before, now = float(np.median(values[point + 1 - window : point + 1])), float(np.median(values[-window:]))
    return Shift(before, now, before - now > DEV_SURE * _error(values, window, window))


def _error(values: np.ndarray, points: float, others: float) -> float:
    """Standard error of the difference of two medians over so many points: of each it is sqrt(pi / 2) times a mean's."""
    return noise(values) * math.sqrt(math.pi / 2 * (1 / points + 1 / others))
