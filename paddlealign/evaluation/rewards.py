"""Figures over the rewards of many answers, and of many pairs."""

import numpy as np


def summarise_rewards(rewards: np.ndarray) -> dict[str, float]:
    """Mean, standard deviation, least and highest of rewards, float [answers], one at least."""
    numbers = rewards.astype(np.float64)
    return {"mean": numbers.mean(), "spread": numbers.std(), "least": numbers.min(), "highest": numbers.max()}


def summarise_pairs(rewards: np.ndarray) -> dict[str, float]:
    """How pairs are ranked. rewards: float [pairs, 2], chosen and rejected; one pair at least.

    accuracy: the share of pairs whose chosen answer has the higher reward; equal rewards count as wrong. mean_margin: of the differences.
    loss: the mean of -log sigmoid(r_w - r_l), ln 2 where the model knows nothing.
    """
    differences = rewards[:, 0].astype(np.float64) - rewards[:, 1].astype(np.float64)
    return {"accuracy": (differences > 0).mean(), "mean_margin": differences.mean(), "loss": np.logaddexp(0, -differences).mean()}
