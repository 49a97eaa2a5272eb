"""Supervised fine-tuning: the cross-entropy of the responses' tokens."""

from paddle import Tensor

from paddlealign.objectives.result import ObjectiveSums


def sft_loss(token_logps: Tensor, correct: Tensor) -> ObjectiveSums:
    """Sum of ``-log pi(y_t | x, y_<t)`` over the scored tokens.

    token_logps: float32 [targets]. correct: bool [targets], whether the target is the model's first choice. The metric "accuracy" counts
    those. Both are sums over "tokens".
    """
    return ObjectiveSums({"tokens": {"loss": -token_logps.sum(), "accuracy": correct.astype("float32").sum()}})
