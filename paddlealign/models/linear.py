"""The decoder's linear layers, cut over the processes of a tensor axis, and the low-rank adapters that may stand beside their weights."""

import numpy as np
import paddle
from paddle import Tensor, nn

from paddlealign.models.makers import TensorLayers
from paddlealign.models.parameters import LoraSettings

_ZEROS = nn.initializer.Constant(0.0)


class Adapter:
    """What the adapters beside one decoder's layers have in common.

    base: the folder of the model that they were put to. draw: the numbers that a micro-batch's dropout is drawn from; None outside
    training, where nothing is dropped.
    """

    def __init__(self, settings: LoraSettings, base: str) -> None:
        self.settings, self.base = settings, base
        self.draw: tuple[int, ...] | None = None

    @property
    def drops(self) -> bool:
        """Whether inputs are dropped now."""
        return self.draw is not None and self.settings.dropout > 0

    def enter_layer(self, number: int) -> None:
        """Before a decoder layer: what it drops depends on the draw and on its number, not on which process computes it after what.

        A layer that is computed again in backward is given the generator's state of its forward by Paddle.
        """
        if self.draw is not None and self.drops:
            paddle.seed(int(np.random.SeedSequence([*self.draw, number]).generate_state(1)[0]))


class Linear(nn.Layer):
    """A linear layer of whose outputs, or inputs, the processes of a tensor axis hold some each.

    weight: [inputs, outputs], of which one is cut. With an adapter beside it (LoRA, Hu et al. 2021, equation 3) the result is
    ``x weight + scale * (x lora_A) lora_B``; lora_A: [inputs, rank], lora_B: [rank, outputs], cut as the weight is.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool, make: TensorLayers, cut_inputs: bool) -> None:
        super().__init__()
        self.make, self.inputs, self.cut_inputs = make, inputs, cut_inputs
        shape = [inputs // make.parts, outputs] if cut_inputs else [inputs, outputs // make.parts]
        self.weight = self.create_parameter(shape, default_initializer=_ZEROS)
        self.bias = self.create_parameter([outputs if cut_inputs else shape[1]], default_initializer=_ZEROS) if bias else None
        self.adapter: Adapter | None = None

    def attach(self, adapter: Adapter) -> None:
        """Put an adapter of zeros beside the weight."""
        self.stand_beside(adapter, self.zero_pair(adapter.settings.rank))

    def zero_pair(self, rank: int) -> tuple[Tensor, Tensor]:
        """lora_A and lora_B of zeros for this weight."""
        (inputs, outputs), dtype = self.weight.shape, self.weight.dtype
        first = self.create_parameter([inputs, rank], dtype=dtype, default_initializer=_ZEROS)
        return first, self.create_parameter([rank, outputs], dtype=dtype, default_initializer=_ZEROS)

    def stand_beside(self, adapter: Adapter | None, pair: tuple[Tensor, Tensor] | None) -> None:
        """Put an adapter's lora_A and lora_B beside the weight in the place of what stands there; None: nothing."""
        self.adapter = None if pair is None else adapter
        if pair is not None:
            self.lora_A, self.lora_B = pair
        elif hasattr(self, "lora_A"):
            del self.lora_A, self.lora_B

    def forward(self, x: Tensor) -> Tensor:
        """Cut outputs: [rows, length, inputs] to [rows, length, outputs / parts].

        Cut inputs: [rows, length, inputs / parts] to [rows, length / positions, outputs].
        """
        result = nn.functional.linear(x, self.weight, None if self.cut_inputs else self.bias)
        if self.adapter is not None:
            low = paddle.matmul(self._dropped(x, self.adapter), self.lora_A)
            result = result + paddle.matmul(low, self.lora_B) * self.adapter.settings.scale
        if not self.cut_inputs:
            return result
        total = self.make.collect(result)
        return total if self.bias is None else total + self.bias

    def _dropped(self, x: Tensor, adapter: Adapter) -> Tensor:
        """The input with some of it dropped and the rest scaled up. Masks are drawn for all inputs; each part takes its own."""
        if not adapter.drops:
            return x
        mask = nn.functional.dropout(paddle.ones([*x.shape[:-1], self.inputs], x.dtype), adapter.settings.dropout)
        first = self.make.part * x.shape[-1] if self.cut_inputs else 0
        return x * mask[..., first : first + x.shape[-1]]
