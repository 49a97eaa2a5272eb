"""From token log-probs to the log-probs of whole responses."""

import paddle
from paddle import Tensor


def response_logps(token_logps: Tensor, owner: Tensor, responses: int) -> Tensor:
    """Sum the log-probs of each response's scored tokens: ``log pi(y | x) = sum_t log pi(y_t | x, y_<t)``.

    token_logps: float32 [targets]. owner: int64 [targets], the response that each target belongs to. responses: how many there
    are. Returns float32 [responses], zero where a response has no target.
    """
    return paddle.scatter_nd_add(paddle.zeros([responses], "float32"), owner.unsqueeze(1), token_logps)
