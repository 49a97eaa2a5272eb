"""Two sets of answers, A and B, to the same prompts: who won how often, and how sure that is."""

import math
from dataclasses import dataclass

import numpy as np

# The standard normal distribution's 97.5 % point.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Tally:
    """Rows that A won, that neither won, and that A lost; one row at least."""

    wins: int
    ties: int
    losses: int

    @property
    def rows(self) -> int:
        """All of them."""
        return self.wins + self.ties + self.losses

    @property
    def win_rate(self) -> float:
        """A's wins, and half of the ties, as a share of all rows."""
        return (self.wins + self.ties / 2) / self.rows


def outcomes_of(margins: np.ndarray, tie_margin: float) -> np.ndarray:
    """What became of each row for A: float64 [rows] of 1 (won), 0.5 (tie) and 0 (lost).

    margins: float64 [rows], A's score less B's. tie_margin: up to this difference, it included, a row is a tie.
    """
    return np.where(np.abs(margins) <= tie_margin, 0.5, (margins > 0).astype(np.float64))


def tally_of(outcomes: np.ndarray) -> Tally:
    """Count ``outcomes_of``."""
    return Tally(*(int((outcomes == value).sum()) for value in (1.0, 0.5, 0.0)))


def wilson_interval(share: float, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927): ``(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)``.

    trials: n, 1 or more. z: of the confidence, 95 % by default. Where ties went into the share as halves it is wider than need be, since
    ties vary less than wins and losses do.
    """
    middle = share + z * z / (2 * trials)
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)
