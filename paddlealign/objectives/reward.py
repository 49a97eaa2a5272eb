"""Reward modelling: a pure function of the responses' scores."""

import paddle
from paddle import Tensor
from paddle.nn.functional import log_sigmoid

from paddlealign.objectives.result import PAIRS, ObjectiveSums


def reward_loss(rewards: Tensor, margins: Tensor, center_rewards_coefficient: float) -> ObjectiveSums:
    """Bradley-Terry over pairs, ``-log sigmoid(r_w - r_l - m)``, and a term that keeps rewards about zero, ``c (r_w + r_l)^2``.

    Without a margin Ouyang et al. 2022 (arXiv 2203.02155), equation 1; with it Touvron et al. 2023 (arXiv 2307.09288), equation 2. The
    first term knows differences only, so any number may be added to all rewards of a prompt; the second (Eisenstein et al. 2023, arXiv
    2312.09244) says which.

    rewards: float32 [2 pairs], chosen and rejected in turn. margins: m, float32 [pairs]. center_rewards_coefficient: c, 0 for none. The
    sums are over pairs. Metrics: ``accuracy`` how often the chosen answer has the higher reward; ``margin`` the difference of the two;
    ``mean_reward`` and ``mean_squared_reward`` of the pair's two rewards.
    """
    pairs = rewards.reshape([-1, 2])
    chosen, rejected = pairs[:, 0], pairs[:, 1]
    difference = chosen - rejected
    loss = -log_sigmoid(difference - margins).sum()
    if center_rewards_coefficient:
        loss = loss + (chosen + rejected).square().sum().scale(center_rewards_coefficient)
    with paddle.no_grad():
        metrics = {
            "accuracy": (difference > 0).astype("float32").sum(),
            "margin": difference.sum(),
            "mean_reward": rewards.sum() / 2,
            "mean_squared_reward": rewards.square().sum() / 2,
        }
    return ObjectiveSums({PAIRS: {"loss": loss, **metrics}}, {"rewards/margins": difference.detach()})
