"""What the processes of an axis bring together: numbers, plain values, gradients, and tensors that each holds a share of.

Every function is called by all processes of the axis, in the same order; on an axis of one it does nothing and touches no group.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle import distributed as dist

from paddlealign.errors import UserError
from paddlealign.parallel.agreement import disagreement
from paddlealign.parallel.topology import Axis, Topology


def sum_over(axis: Axis, values: np.ndarray) -> np.ndarray:
    """The sum of every process's numbers: float64, of ``values``' shape, the same bits in all."""
    if axis.size == 1 or not values.size:  # gloo refuses to add up nothing
        return np.asarray(values, np.float64)
    total = paddle.to_tensor(np.asarray(values, np.float64))
    dist.all_reduce(total, group=axis.group)
    return total.numpy()


def gather_values(axis: Axis, value: Any) -> list[Any]:
    """Every process's plain value (numbers, texts, lists and dicts of them), in the order of the axis."""
    if axis.group is None:
        return [value]
    gathered: list[Any] = []
    dist.all_gather_object(gathered, value, group=axis.group)
    return gathered


def everywhere(topology: Topology, flag: bool) -> bool:
    """Whether the flag is true in all processes."""
    return all(gather_values(topology.everyone, flag))


def agree(topology: Topology, told: dict[str, str]) -> None:
    """Raise UserError in all processes where they were not told the same. told: by what it is of, a text that must be the same."""
    text = disagreement(gather_values(topology.everyone, told))
    if text is not None:
        raise UserError(text)


@paddle.no_grad()
def sum_gradients(axis: Axis, parameters: Iterable[Tensor]) -> None:
    """Add up the parameters' gradients over the axis; every process has one for the same of them."""
    if axis.size == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad, group=axis.group)


@paddle.no_grad()
def sum_over_ends(axis: Axis, parameter: Tensor | None, shape: list[int]) -> None:
    """Add up the gradients of what the first and the last process of the axis both hold, as a tied embedding.

    parameter: None in those between, which give zeros. shape: of the parameter.
    """
    if axis.size == 1:
        return
    gradient = None if parameter is None else parameter.grad
    dist.all_reduce(paddle.zeros(shape) if gradient is None else gradient, group=axis.group)


@paddle.no_grad()
def from_holder(axis: Axis, holder: int, tensor: Tensor | None, shape: list[int], dtype: str) -> Tensor:
    """The tensor of the process ``holder`` of the axis, on all of them. shape, dtype: of that tensor, known to all."""
    if axis.size == 1 and tensor is not None:
        return tensor
    # Both backends send memory as it lies, and a view may lie in another order.
    shared = tensor.contiguous() if axis.rank == holder and tensor is not None else paddle.empty(shape, dtype)  # type: ignore[arg-type]
    dist.broadcast(shared, src=axis.ranks[holder], group=axis.group)
    return shared


@paddle.no_grad()
def join_shares(axis: Axis, tensor: Tensor, cut: int) -> Tensor:
    """The whole tensor on every process, from shares along dimension ``cut``."""
    if axis.size == 1:
        return tensor
    shares: list[Tensor] = []
    dist.all_gather(shares, tensor, group=axis.group)
    return paddle.concat(shares, axis=cut)


@paddle.no_grad()
def join_at_first(axis: Axis, share: Tensor, cut: int | None, shape: list[int]) -> Tensor | None:
    """The whole tensor of ``shape`` on the first process of the axis, None on the others.

    cut: the dimension along which each process has an equal share; what shares have beyond the shape is padding. None: all have the whole.
    One share at a time is under way, so beside its own a process holds another one, and the first the whole.
    """
    if axis.size == 1 or cut is None:
        return (share if share.shape == shape else share[tuple(map(slice, shape))].contiguous()) if axis.rank == 0 else None
    whole = paddle.empty(shape, share.dtype) if axis.rank == 0 else None
    width = share.shape[cut]
    for place in range(axis.size):
        part = from_holder(axis, place, share, share.shape, str(share.dtype).removeprefix("paddle."))
        count = min(width, shape[cut] - place * width)
        if whole is not None and count > 0:
            rows, all_before = slice(place * width, place * width + count), (slice(None),) * cut
            whole[all_before + (rows,)] = part[all_before + (slice(count),)]
    return whole
