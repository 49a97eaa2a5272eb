"""What every objective returns: sums and what they are sums over, never means.

The step divides by the counts over all its micro-batches and ranks, so that how a batch is cut cannot change a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from paddle import Tensor

PAIRS = "pairs"


@dataclass(frozen=True)
class ObjectiveSums:
    """Sums over some micro-batch, by the count that divides them ("tokens", "pairs", ...), then by name.

    values: float32 scalars. Those named "loss" have a gradient; the loss is each divided by its count, and added up. The others are metrics
    without a gradient, each the sum of a quantity over the same tokens or pairs. margins: of each
    pair by itself, float32 [pairs] by name, chosen less rejected, without a gradient; none where nothing is compared.
    """

    values: dict[str, dict[str, Tensor]]
    margins: dict[str, Tensor] = field(default_factory=dict)

    def loss(self, counts: Mapping[str, int]) -> Tensor:
        """This micro-batch's part in the loss of a step that has these counts: float32 scalar."""
        parts = [values["loss"] / max(counts[per], 1) for per, values in self.values.items() if "loss" in values]
        return sum(parts[1:], parts[0])

    def detach(self) -> "ObjectiveSums":
        """The same sums without their graph, and without the margins."""
        return ObjectiveSums({per: {name: value.detach() for name, value in values.items()} for per, values in self.values.items()})
