"""Pipeline parallelism: one forward, one backward, for micro-batches whose shapes differ and are known to every stage.

Narayanan et al. 2021, "Memory-efficient pipeline-parallel DNN training" (PipeDream-Flush), as Megatron-LM schedules it: stage k of K
runs K - 1 - k forwards ahead, then a forward and a backward in turn, then the backwards that are left. Nothing is averaged or cut up here:
gradients add up in the parameters, and what a micro-batch is divided by is the caller's affair.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import paddle
from paddle import Tensor
from paddle import distributed as dist
from paddle.distributed.communication.group import Group

from paddlealign.parallel.topology import SINGLE, Axis

Deed = Literal["receive", "forward", "send", "receive gradient", "backward", "send gradient"]


class Step(NamedTuple):
    """One thing that a stage does with a micro-batch, which is told by its place among them."""

    deed: Deed
    batch: int


@dataclass(frozen=True)
class Chain:
    """The stages of a pipeline as this one sees them: the axis, and a group with each neighbour (None at the ends).

    A group for each pair, because Paddle's gloo tags a message with the number of operations that the process has run in the group, and the
    receiver must have run as many: in one group of three stages the middle one sends under a tag that the last does not look for.
    """

    axis: Axis
    before: Group | None
    after: Group | None

    @property
    def is_first(self) -> bool:
        """Whether this stage starts from token ids."""
        return self.axis.rank == 0

    @property
    def is_last(self) -> bool:
        """Whether this stage ends with the loss."""
        return self.axis.rank == self.axis.size - 1


LONE_CHAIN = Chain(SINGLE.pipeline, None, None)


def connect(axis: Axis) -> Chain:
    """Open the groups between neighbours. All processes of the run call it at once, once; an axis of one touches no group."""
    if axis.size == 1:
        return Chain(axis, None, None)
    pipelines: list[tuple[int, ...]] = []
    dist.all_gather_object(pipelines, axis.ranks)
    links = {}
    # A group's number is how many were made before it, so those that this process is not in are made here as well.
    for ranks in sorted(set(pipelines)):
        for pair in pairwise(ranks):
            links[pair] = dist.new_group(list(pair))
    here = axis.ranks[axis.rank]
    before = None if axis.rank == 0 else links[axis.ranks[axis.rank - 1], here]
    after = None if axis.rank == axis.size - 1 else links[here, axis.ranks[axis.rank + 1]]
    return Chain(axis, before, after)


def schedule(stages: int, stage: int, count: int) -> list[Step]:
    """What ``stage`` of ``stages`` does with ``count`` micro-batches, in order; at most stages - stage of them are alive at a time.

    A send may last until the neighbour receives, so both ends of a link must go through its messages in one order. That is: a gradient
    first, then the output that was computed while waiting for it.
    """
    first, last = stage == 0, stage == stages - 1
    ahead = min(stages - 1 - stage, count)
    steps: list[Step] = []

    def forward(index: int) -> None:
        if not first:
            steps.append(Step("receive", index))
        steps.append(Step("forward", index))

    def send(index: int) -> None:
        if not last:
            steps.append(Step("send", index))

    for index in range(ahead):
        forward(index)
        send(index)
    for index in range(count):
        coming = index + ahead
        if coming < count:
            forward(coming)
        if not last:
            steps.append(Step("receive gradient", index))
        if coming < count:
            send(coming)
        steps.append(Step("backward", index))
        if not first:
            steps.append(Step("send gradient", index))
    return steps


def run_pipeline(
    chain: Chain,
    shapes: Sequence[tuple[int, ...]],
    dtype: str,
    forward: Callable[[int, Tensor | None], Tensor],
    backward: Callable[[int, Tensor, Tensor | None], None],
) -> None:
    """Take micro-batches forward and backward through this stage. All stages of the chain call it, with the same shapes and dtype.

    shapes: of the hidden states between stages, by micro-batch. dtype: theirs, as "bfloat16". Their gradients have the same. forward:
    (index, received) computes a micro-batch on this stage; received: hidden states of the stage before, None on the first; returns the
    hidden states for the stage after, or the loss on the last. backward: (index, output, gradient) runs backward from what forward
    returned; gradient: that of the output, None on the last stage. Other tensors that the two keep are alive until they drop them.

    Raises ValueError where hidden states are not of the shape and dtype told, and where no gradient comes to what was received.
    """
    received: dict[int, Tensor] = {}
    outputs: dict[int, Tensor] = {}
    gradients: dict[int, Tensor] = {}
    for deed, index in schedule(chain.axis.size, chain.axis.rank, len(shapes)):
        if deed == "receive":
            received[index] = _receive(chain, -1, shapes[index], dtype)
            received[index].stop_gradient = False
        elif deed == "forward":
            outputs[index] = forward(index, received.get(index))
        elif deed == "send":
            _send(chain, 1, index, outputs[index].detach(), shapes[index], dtype)
        elif deed == "receive gradient":
            gradients[index] = _receive(chain, 1, shapes[index], dtype)
        elif deed == "backward":
            backward(index, outputs.pop(index), gradients.pop(index, None))
        else:
            _send(chain, -1, index, received.pop(index).grad, shapes[index], dtype)


@paddle.no_grad()
def run_forward_only(
    chain: Chain, shapes: Sequence[tuple[int, ...]], dtype: str, forward: Callable[[int, Tensor | None], Tensor | None]
) -> None:
    """Take micro-batches through this stage without gradients, for evaluation and reference log-probs; arguments as in ``run_pipeline``.

    What ``forward`` finds on the last stage it keeps itself; what it returns there is dropped. See ``from_last``.
    """
    for index, shape in enumerate(shapes):
        received = None if chain.is_first else _receive(chain, -1, shape, dtype)
        output = forward(index, received)
        if not chain.is_last:
            _send(chain, 1, index, output, shape, dtype)


def from_last(chain: Chain, values: np.ndarray) -> np.ndarray:
    """The last stage's numbers on every stage, the same bits: float64. ``values`` has the same shape everywhere; only the last's count."""
    numbers = np.asarray(values, np.float64)
    if chain.axis.size == 1:
        return numbers
    shared = paddle.to_tensor(numbers)
    dist.broadcast(shared, src=chain.axis.ranks[-1], group=chain.axis.group)
    return shared.numpy()


def _receive(chain: Chain, side: int, shape: tuple[int, ...], dtype: str) -> Tensor:
    """Wait for a tensor of the stage before (side -1) or after (1)."""
    tensor = paddle.empty(list(shape), getattr(paddle, dtype))
    dist.recv(tensor, src=chain.axis.ranks[chain.axis.rank + side], group=chain.before if side < 0 else chain.after)
    return tensor


def _send(chain: Chain, side: int, index: int, tensor: Tensor | None, shape: tuple[int, ...], dtype: str) -> None:
    """Send to the stage before (side -1) or after (1); a message of another size would end in gloo's or NCCL's own words, or in silence."""
    what = "hidden states" if side > 0 else "gradient of the hidden states"
    told = f"stage {chain.axis.rank} of {chain.axis.size}, micro-batch {index}: the {what}"
    if tensor is None:
        raise ValueError(f"{told} is missing: the stage's output does not depend on what it received")
    found = str(tensor.dtype).removeprefix("paddle.")
    if tuple(tensor.shape) != tuple(shape) or found != dtype:
        raise ValueError(f"{told}: {found} {tuple(tensor.shape)} instead of {dtype} {tuple(shape)}")
    # Both backends send memory as it lies, and a view may lie in another order.
    dist.send(tensor.contiguous(), dst=chain.axis.ranks[chain.axis.rank + side], group=chain.before if side < 0 else chain.after)
