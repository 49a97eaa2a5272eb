"""Preference objectives: pure functions of the responses' log-probs under the policy and the reference."""

import paddle
from paddle import Tensor
from paddle.nn.functional import log_sigmoid

from paddlealign.objectives.result import ObjectiveSums


def sigmoid_loss(margin: Tensor, label_smoothing: float) -> Tensor:
    """Direct preference optimisation, and its conservative form where labels are wrong with some probability.

    ``-(1 - e) log sigmoid(m) - e log sigmoid(-m)`` with the margin ``m = beta (log pi(y_w|x) / ref(y_w|x) - log pi(y_l|x) / ref(y_l|x))``:
    Rafailov et al. 2023 (arXiv 2305.18290), equation 7, for e = 0; Mitchell 2023, "A note on DPO with noisy preferences", equation 3,
    for 0 < e < 0.5.

    margin: float32 [pairs]. label_smoothing: e. Returns float32 [pairs].
    """
    agreed = -log_sigmoid(margin)
    if label_smoothing == 0.0:
        return agreed
    return agreed.scale(1.0 - label_smoothing) - log_sigmoid(-margin).scale(label_smoothing)


def dpo_loss(policy_logps: Tensor, reference_logps: Tensor, beta: float, label_smoothing: float) -> ObjectiveSums:
    """DPO over pairs, with its implicit rewards (Rafailov et al. 2023, equations 5 and 7).

    policy_logps, reference_logps: float32 [2 pairs], chosen and rejected in turn. beta: the strength of the pull towards the
    reference, no unit. The sums are over pairs. Metrics: ``rewards/chosen`` and ``rewards/rejected`` = beta (log pi - log ref);
    ``rewards/margins`` their difference; ``rewards/accuracies`` how often it is above zero; ``logps/chosen`` and ``logps/rejected``.
    """
    policy = policy_logps.reshape([-1, 2])
    rewards = (policy - reference_logps.reshape([-1, 2])).scale(beta)
    margin = rewards[:, 0] - rewards[:, 1]
    loss = sigmoid_loss(margin, label_smoothing).sum()
    with paddle.no_grad():
        reward_sums, logp_sums = rewards.sum(0), policy.sum(0)
        metrics = {
            "rewards/chosen": reward_sums[0],
            "rewards/rejected": reward_sums[1],
            "rewards/margins": margin.sum(),
            "rewards/accuracies": (margin > 0).astype("float32").sum(),
            "logps/chosen": logp_sums[0],
            "logps/rejected": logp_sums[1],
        }
    return ObjectiveSums(loss, metrics)
