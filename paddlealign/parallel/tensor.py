"""Tensor parallelism: fleet's layers, each cut over the ranks of one axis."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import paddle
from paddle import Tensor, nn
from paddle.distributed.fleet.meta_parallel import ColumnParallelLinear, RowParallelLinear, VocabParallelEmbedding

from paddlealign.parallel.topology import Axis
from paddlealign.parallel.vocabulary import token_logps


class CutLayers(NamedTuple):
    """Makers of the layers that are cut, with the fields and the order of ``models.makers.TensorLayers``.

    parts, part: how many ranks share a layer, and which this is. column: (inputs, outputs, bias) of the whole layer; takes the whole
    input, gives this rank's outputs. row: the same; takes this rank's inputs, gives the whole output. embedding: (rows, columns) of the
    whole table, its rows cut; gives whole vectors. The cut sizes must be multiples of ``parts``. token_logps: (hidden, head,
    target_ids, vocabulary_first, vocab_size), see ``vocabulary.token_logps``.
    """

    parts: int
    part: int
    column: Callable[[int, int, bool], nn.Layer]
    row: Callable[[int, int, bool], nn.Layer]
    embedding: Callable[[int, int], nn.Layer]
    token_logps: Callable[[Tensor, Tensor, Tensor, bool, int], tuple[Tensor, Tensor]]


def tensor_makers(axis: Axis) -> CutLayers:
    """Make layers for an axis of two ranks or more, after ``topology.start``.

    Weights are zeros, since they are about to be read, of Paddle's default dtype. A column layer's backward adds up its input's gradient
    over the ranks, a row layer's and the embedding's forward adds up the output; each sum is in the dtype of the activations.
    """

    def column(inputs: int, outputs: int, bias: bool) -> nn.Layer:
        return ColumnParallelLinear(inputs, outputs, _zeros(), has_bias=bias, gather_output=False, mp_group=axis.group)

    def row(inputs: int, outputs: int, bias: bool) -> nn.Layer:
        return RowParallelLinear(inputs, outputs, _zeros(), has_bias=bias, input_is_parallel=True, mp_group=axis.group)

    def embedding(rows: int, columns: int) -> nn.Layer:
        return VocabParallelEmbedding(rows, columns, _zeros(), mp_group=axis.group)

    return CutLayers(axis.size, axis.rank, column, row, embedding, partial(token_logps, axis))


def _zeros() -> paddle.ParamAttr:
    return paddle.ParamAttr(initializer=nn.initializer.Constant(0.0))
