"""Figures over rewards, worked out on paper."""

import numpy as np
import pytest

from paddlealign.evaluation.rewards import summarise_pairs, summarise_rewards


def test_rewards() -> None:
    assert summarise_rewards(np.float32([1, 2, 6])) == pytest.approx({"mean": 3, "spread": (14 / 3) ** 0.5, "least": 1, "highest": 6})


def test_pairs() -> None:
    """Differences 2, -1 and 0: equal rewards count as wrong."""
    found = summarise_pairs(np.float32([[1, -1], [0, 1], [3, 3]]))
    loss = (np.log1p(np.exp(-2)) + np.log1p(np.exp(1)) + np.log(2)) / 3
    assert found == pytest.approx({"accuracy": 1 / 3, "mean_margin": 1 / 3, "loss": loss})
