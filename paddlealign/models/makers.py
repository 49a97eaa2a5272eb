"""What a decoder is built from: the layers that tensor parallelism cuts, and which of the model's layers a process holds."""

from collections.abc import Callable
from dataclasses import dataclass

import paddle
from paddle import Tensor, nn

from paddlealign.models.head import token_logps

_ZEROS = nn.initializer.Constant(0.0)


@dataclass(frozen=True)
class TensorLayers:
    """Makers of the layers that tensor parallelism cuts, and the one function of the head that knows of it.

    parts, part: how many processes share each such layer, and which this is. column, row: (inputs, outputs, bias) of the whole layer; a
    column layer's outputs and a row layer's inputs are cut. embedding: (rows, columns) of the whole table, its rows cut; rows are a
    multiple of ``parts``. token_logps: as ``head.token_logps``, with this process's part of the head and the size of the vocabulary
    without padding in addition. All weights are zeros: they are about to be read from a checkpoint.
    """

    parts: int
    part: int
    column: Callable[[int, int, bool], nn.Layer]
    row: Callable[[int, int, bool], nn.Layer]
    embedding: Callable[[int, int], nn.Layer]
    token_logps: Callable[[Tensor, Tensor, Tensor, bool, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Stage:
    """The layers from ``first`` to ``last`` - 1 that a process holds; with the first the embedding, with the last the norm and the head.

    A last stage that is not the first holds the embedding too where it is tied to the head.
    """

    first: int
    last: int


def _linear(inputs: int, outputs: int, bias: bool) -> nn.Layer:
    zeros = paddle.ParamAttr(initializer=_ZEROS)
    return nn.Linear(inputs, outputs, weight_attr=zeros, bias_attr=zeros if bias else False)


def _embedding(rows: int, columns: int) -> nn.Layer:
    return nn.Embedding(rows, columns, weight_attr=paddle.ParamAttr(initializer=_ZEROS))


def _token_logps(hidden: Tensor, head: Tensor, target_ids: Tensor, vocabulary_first: bool, _: int) -> tuple[Tensor, Tensor]:
    return token_logps(hidden, head, target_ids, vocabulary_first)


WHOLE_LAYERS = TensorLayers(1, 0, _linear, _linear, _embedding, _token_logps)
