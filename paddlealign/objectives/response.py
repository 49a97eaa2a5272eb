"""From token log-probs to the log-probs of whole responses."""

import paddle
from paddle import Tensor


def response_logps(token_logps: Tensor, owner: Tensor, responses: int) -> Tensor:
    """Sum the log-probs of each response's scored tokens: ``log pi(y | x) = sum_t log pi(y_t | x, y_<t)``.

    token_logps: float32 [targets]. owner: int64 [targets], the response that each target belongs to. responses: how many there
    are. Returns float32 [responses], zero where a response has no target.
    """
    return paddle.scatter_nd_add(paddle.zeros([responses], "float32"), owner.unsqueeze(1), token_logps)


def response_lengths(owner: Tensor, responses: int) -> Tensor:
    """Scored tokens of each response. owner: int64 [targets], as in ``response_logps``. Returns float32 [responses]."""
    return response_logps(paddle.ones(owner.shape, "float32"), owner, responses)


def verbose_weights(owner: Tensor, responses: int, alpha: float) -> Tensor:
    """Length-desensitised DPO: 1 for the tokens up to the shorter answer's length, ``alpha`` for the longer one's rest.

    Liu et al. 2024, "LD-DPO" (arXiv 2409.06411). owner: int64 [targets] in order, responses chosen and rejected in turn.
    Returns float32 [targets].
    """
    lengths = response_lengths(owner, responses)
    shared = lengths.reshape([-1, 2]).min(1, keepdim=True).expand([-1, 2]).reshape([-1])
    first = paddle.cumsum(lengths) - lengths
    place = paddle.arange(len(owner), dtype="float32") - first.gather(owner)
    return paddle.where(place < shared.gather(owner), paddle.ones_like(place), paddle.full_like(place, alpha))


@paddle.no_grad()
def pair_weights(aligned_logps: Tensor, owner: Tensor, lengths: Tensor) -> Tensor:
    """How near a pair is to what the policy itself would write: ``exp(mean a of y_w) exp(mean a of y_l)``, without a gradient.

    Zhou et al. 2024, "WPO" (arXiv 2406.11827), equation 2 with weights aligned to samples. aligned_logps: float32 [targets], each token's
    ``a = log pi(y_t) - log sum_v pi(v)^2``. owner: int64 [targets], responses chosen and rejected in turn. lengths: float32 [responses].
    Returns float32 [pairs].
    """
    means = response_logps(aligned_logps, owner, len(lengths)) / lengths.clip(min=1.0)
    return means.reshape([-1, 2]).sum(1).exp()
