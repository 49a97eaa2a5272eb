"""The divergence that holds the policy to the reference.

Wang et al. 2023, "Beyond reverse KL" (arXiv 2309.16240), table 1; its alpha is 1 - ours.
"""

import math

import paddle
from paddle import Tensor
from paddle.nn.functional import log_sigmoid

# exp of more than this is not a float32.
_HIGHEST_EXPONENT = 80.0


def divergence_scores(ratios: Tensor, kind: str, alpha: float) -> Tensor:
    """What takes the place of the log-ratio u in DPO under another divergence: ``f'(e^u)``, up to constants that drop out of a pair.

    kind: "reverse_kl", u itself; "forward_kl", ``1 - e^-u``; "js_divergence", ``log 2 + log sigmoid(u)``; "alpha_divergence",
    ``(e^((alpha - 1) u) - 1) / (alpha - 1)``, the reverse KL at alpha = 1, the forward KL at alpha = 0.
    ratios: float32, any shape.
    """
    if kind == "forward_kl":
        return divergence_scores(ratios, "alpha_divergence", 0.0)
    if kind == "js_divergence":
        return log_sigmoid(ratios) + math.log(2.0)
    if kind == "alpha_divergence" and alpha != 1.0:
        return (paddle.exp(ratios.scale(alpha - 1.0).clip(max=_HIGHEST_EXPONENT)) - 1.0).scale(1.0 / (alpha - 1.0))
    return ratios
