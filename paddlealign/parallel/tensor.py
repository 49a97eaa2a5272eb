"""Tensor parallelism (Shoeybi et al. 2019) over the ranks of one axis, and with it sequence parallelism (Korthikanti et al. 2022)."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import paddle
from paddle import Tensor
from paddle import distributed as dist
from paddle.autograd import PyLayer
from paddle.distributed.fleet.layers.mpu import mp_ops

from paddlealign.parallel.topology import Axis
from paddlealign.parallel.vocabulary import collision_logps, gather_logits, token_logps


class CutLayers(NamedTuple):
    """How this rank shares a decoder's layers, with the fields and the order of ``models.makers.TensorLayers``, which has their meaning."""

    parts: int
    part: int
    positions: int
    spread: Callable[[Tensor], Tensor]
    collect: Callable[[Tensor], Tensor]
    lookup: Callable[[Tensor, Tensor], Tensor]
    join: Callable[[Tensor], Tensor]
    token_logps: Callable[[Tensor, Tensor, Tensor, bool, int], tuple[Tensor, Tensor]]
    gather_logits: Callable[[Tensor, int], Tensor]
    collision_logps: Callable[[Tensor, Tensor, bool, int], Tensor]


def tensor_makers(axis: Axis, sequence_parallel: bool = False) -> CutLayers:
    """The functions of an axis of two ranks or more, after ``topology.start``.

    Without sequence_parallel ``spread`` changes nothing and its backward adds up the gradient over the ranks, ``collect`` adds up forward
    and hands the gradient on, ``join`` changes nothing. With it the positions of a row, a multiple of the ranks, are cut between the
    layers: ``spread`` gathers them and its backward adds up and cuts, ``collect`` adds up and cuts and its backward gathers, ``join``
    gathers and its backward cuts. Sums are in the dtype of the activations.
    """
    positions = axis.size if sequence_parallel else 1
    spread: Callable[[Tensor], Tensor] = partial(mp_ops._c_identity, group=axis.group)
    collect: Callable[[Tensor], Tensor] = partial(mp_ops._mp_allreduce, group=axis.group)
    join: Callable[[Tensor], Tensor] = _as_it_is
    if sequence_parallel:
        spread, collect, join = (partial(layer.apply, axis=axis) for layer in (_Gather, _SumAndCut, _Join))
    head = partial(token_logps, axis), partial(gather_logits, axis), partial(collision_logps, axis)
    return CutLayers(axis.size, axis.rank, positions, spread, collect, partial(_lookup, axis), join, *head)


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _lookup(axis: Axis, ids: Tensor, table: Tensor) -> Tensor:
    rows = table.shape[0]
    return mp_ops._c_lookup_table(table, ids, start_index=axis.rank * rows, vocab_size=rows * axis.size)


class _Gather(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis) -> Tensor:
        ctx.axis = axis
        return _gathered(x, axis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _summed_and_cut(grad, ctx.axis)


class _SumAndCut(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis) -> Tensor:
        ctx.axis = axis
        return _summed_and_cut(x, axis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _gathered(grad, ctx.axis)


class _Join(PyLayer):
    """Like ``_Gather``, where every rank is given the whole gradient already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis) -> Tensor:
        ctx.axis = axis
        return _gathered(x, axis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return paddle.split(grad, ctx.axis.size, axis=1)[ctx.axis.rank].contiguous()


def _gathered(x: Tensor, axis: Axis) -> Tensor:
    """[rows, length / ranks, n] of each rank to [rows, length, n] on all."""
    parts: list[Tensor] = []
    dist.all_gather(parts, x.contiguous(), group=axis.group)
    return paddle.concat(parts, axis=1)


def _summed_and_cut(x: Tensor, axis: Axis) -> Tensor:
    """The sum of every rank's [rows, length, n], of which this rank gets its positions: [rows, length / ranks, n]."""
    parts = [part.contiguous() for part in paddle.split(x, axis.size, axis=1)]
    own = paddle.empty_like(parts[0])
    dist.reduce_scatter(own, parts, group=axis.group)
    return own
