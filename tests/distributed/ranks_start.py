"""What each rank runs for test_start.py. Arguments: tensor, pipeline and data degree. Prints one line, which is JSON."""

import json
import sys
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle.distributed.communication.reduce import _get_reduce_op
from paddle.distributed.fleet.layers.mpu import mp_ops

from paddlealign.parallel.collect import sum_over
from paddlealign.parallel.topology import Topology, start


def over_each_axis(topology: Topology) -> dict[str, Any]:
    """size, rank and ranks of each axis, and the sum of its members' 10^rank."""
    axes = {name: getattr(topology, name) for name in ("tensor", "pipeline", "data", "everyone")}
    return {name: [axis.size, axis.rank, list(axis.ranks), int(sum_over(axis, np.array(10**topology.rank)))] for name, axis in axes.items()}


def collectives(topology: Topology) -> dict[str, Any]:
    """The process group's functions "on the stream of the computation", which fleet's layers call, on [1, 2] in rank 0 and [3, 4] in 1."""
    axis = topology.everyone
    group = axis.group.process_group
    mine = [1.0 + 2 * axis.rank, 2.0 + 2 * axis.rank]
    total = _get_reduce_op(dist.ReduceOp.SUM)
    found: dict[str, Any] = {}

    def note(name: str, tensor: paddle.Tensor) -> None:
        found[name] = tensor.tolist()

    tensor = paddle.to_tensor(mine)
    group.all_reduce_on_calc_stream(tensor, total)
    note("all_reduce", tensor)
    tensor = paddle.to_tensor(mine)
    group.broadcast_on_calc_stream(tensor, 1)
    note("broadcast", tensor)
    tensor = paddle.to_tensor(mine)
    group.reduce_on_calc_stream(tensor, 0, total)
    note("reduce", tensor if axis.rank == 0 else paddle.zeros([1]))
    gathered = paddle.zeros([4])
    group.all_gather_into_tensor_on_calc_stream(gathered, paddle.to_tensor(mine))
    note("all_gather_into_tensor", gathered)
    tensor = paddle.to_tensor(mine)
    (group.send_on_calc_stream if axis.rank == 0 else group.recv_on_calc_stream)(tensor, 1 - axis.rank)
    note("send, recv", tensor)
    return found


def shared_input(topology: Topology) -> dict[str, Any]:
    """An input of three column layers, as attention has them: its gradient is added up once for each of them."""
    weight = paddle.to_tensor([1.0, 2.0])
    weight.stop_gradient = False
    hidden = weight * 1.0
    hidden.retain_grads()
    parts = [mp_ops._c_identity(hidden, group=topology.everyone.group) for _ in range(3)]
    sum(part.sum() * 10**power for power, part in enumerate(parts)).backward()
    return {"values": [part.tolist() for part in parts], "gradient": hidden.grad.tolist()}


if __name__ == "__main__":
    topology = start(*(int(word) for word in sys.argv[1:]))
    found = {"axes": over_each_axis(topology), "is_main": topology.is_main}
    if topology.world == 2:
        found |= {"collectives": collectives(topology), "shared input": shared_input(topology)}
    print(json.dumps({"rank": topology.rank, "world": topology.world, **found}))
