"""ZeRO stages 1 and 2 (Rajbhandari et al. 2020): each process of the data axis updates its own share of the parameters.

The optimizer is made over ``owned`` parameters only, so moments and master weights take 1 / ranks of their memory. A step is: the gradients
are summed (stage 1: everywhere, by ``collect.sum_gradients``; stage 2: at the owner, the others drop theirs), the owner updates, and
``share_parameters`` brings the new values to all. Parameters are given in the same order everywhere, those without training left out.
"""

from collections.abc import Sequence

import paddle
from paddle import Tensor
from paddle import distributed as dist

from paddlealign.parallel.topology import Axis


def owners_of(sizes: Sequence[int], ranks: int) -> list[int]:
    """Which of ``ranks`` owns each parameter, by sizes in elements: the largest first, each to the rank with the least so far.

    The same on every process, since ties go to the earlier parameter and the lower rank. The loads of two ranks differ by the largest
    size at most. There must be a parameter for every rank (ValueError).
    """
    if len(sizes) < ranks:
        raise ValueError(f"{len(sizes)} parameters are too few for {ranks} ranks")
    loads = [0] * ranks
    owners = [0] * len(sizes)
    for place in sorted(range(len(sizes)), key=lambda place: (-sizes[place], place)):
        owner = loads.index(min(loads))
        owners[place] = owner
        loads[owner] += sizes[place]
    return owners


@paddle.no_grad()
def reduce_to_owners(axis: Axis, parameters: Sequence[Tensor], owners: Sequence[int]) -> None:
    """Sum each parameter's gradient at its owner; elsewhere it is dropped. All processes of the axis call it at once.

    A process without a gradient counts as zero. It may be called after each micro-batch, where every process has as many: what the owner
    has summed up stays there, and the others add what is new. On an axis of one nothing happens.
    """
    if axis.size == 1:
        return
    for parameter, owner in zip(parameters, owners, strict=True):
        if parameter.grad is None:
            parameter.grad = paddle.zeros(parameter.shape, parameter.dtype)
        # A weight that is used as a view may have such a gradient, which is refused; contiguous() lays out the gradient itself anew.
        dist.reduce(parameter.grad.contiguous(), dst=axis.ranks[owner], group=axis.group)
        if axis.rank != owner:
            parameter.clear_gradient(False)  # set_to_zero; Paddle does not see it as a keyword, and would keep zeros of the same size


@paddle.no_grad()
def share_parameters(axis: Axis, parameters: Sequence[Tensor], owners: Sequence[int]) -> None:
    """Bring each parameter's values from its owner to all, in place. All processes of the axis call it at once."""
    if axis.size == 1:
        return
    for parameter, owner in zip(parameters, owners, strict=True):
        dist.broadcast(parameter, src=axis.ranks[owner], group=axis.group)


def owned(axis: Axis, parameters: Sequence[Tensor], owners: Sequence[int]) -> list[Tensor]:
    """The parameters that this process updates."""
    return [parameter for parameter, owner in zip(parameters, owners, strict=True) if owner == axis.rank]
