"""What every objective returns: sums and how many things were summed, never means.

The step divides by the count over all its micro-batches and ranks, so that how a batch is cut cannot change a number.
"""

from dataclasses import dataclass

from paddle import Tensor


@dataclass(frozen=True)
class ObjectiveSums:
    """The loss of some micro-batch as a sum, and what is reported beside it.

    loss: float32 scalar with a gradient; the sum over tokens (SFT) or pairs (preference objectives).
    metrics: name to float32 scalar without a gradient; each the sum of a quantity over the same tokens or pairs.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
