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
        spread = partial(_Exchange.apply, axis=axis, there=_gathered, back=_summed_and_cut)
        collect = partial(_Exchange.apply, axis=axis, there=_summed_and_cut, back=_gathered)
        # Behind ``join`` every rank is given the whole gradient.
        join = partial(_Exchange.apply, axis=axis, there=_gathered, back=_own_positions)
    head = partial(token_logps, axis), partial(gather_logits, axis), partial(collision_logps, axis)
    return CutLayers(axis.size, axis.rank, positions, spread, collect, partial(_lookup, axis), join, *head)


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _lookup(axis: Axis, ids: Tensor, table: Tensor) -> Tensor:
    rows = table.shape[0]
    return mp_ops._c_lookup_table(table, ids, start_index=axis.rank * rows, vocab_size=rows * axis.size)


class _Exchange(PyLayer):
    """One exchange of the axis forward, another one of the gradient backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis, there: Callable[[Tensor, Axis], Tensor], back: Callable[[Tensor, Axis], Tensor]) -> Tensor:
        ctx.axis, ctx.back = axis, back
        return there(x, axis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return ctx.back(grad, ctx.axis)


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


def _own_positions(x: Tensor, axis: Axis) -> Tensor:
    """This rank's positions of what all have whole: [rows, length, n] to [rows, length / ranks, n]."""
    return paddle.split(x, axis.size, axis=1)[axis.rank].contiguous()
