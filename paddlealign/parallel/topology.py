"""Which processes there are, which of them share what, and how they are started."""

import io
import os
import sys
import warnings
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

import paddle
from paddle.distributed import fleet
from paddle.distributed.fleet.utils.log_util import set_log_level

from paddlealign.parallel.stand_ins import install
from paddlealign.saying import tells_all


@dataclass(frozen=True)
class Axis:
    """One way of sharing, as a process sees it.

    size: how many processes share. rank: this one's place among them. group: what Paddle's collectives take, None where size is 1.
    ranks: the places of these processes among all, in the axis's order.
    """

    size: int
    rank: int
    group: Any
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Topology:
    """This process among all: world = data x pipeline x tensor, where neighbours in ``tensor`` are neighbours in ``rank``.

    The processes of ``tensor`` share each layer, those of ``pipeline`` hold different layers, those of ``data`` read different rows.
    data = replicas x shards: those of ``shards`` keep a part each of what they would all keep alike, those of ``replicas`` the same part.
    everyone: all of them.
    """

    rank: int
    world: int
    tensor: Axis
    pipeline: Axis
    data: Axis
    replicas: Axis
    shards: Axis
    everyone: Axis

    @property
    def is_main(self) -> bool:
        """The one process that speaks and writes logs."""
        return self.rank == 0


_ALONE = Axis(1, 0, None, (0,))
SINGLE = Topology(0, 1, _ALONE, _ALONE, _ALONE, _ALONE, _ALONE, _ALONE)


def start(tensor: int, pipeline: int, data: int, shards: int = 1) -> Topology:
    """Meet the other processes that paddle.distributed.launch started and make the groups. To be called once, by all of them.

    The device must be chosen before (``paddle.set_device``): on the CPU processes speak over gloo, on GPUs over nccl. The product of the
    first three is the number of processes (``arguments.degrees``); 1 x 1 x 1 is ``SINGLE`` and touches nothing. shards: a divisor of data.
    """
    if tensor * pipeline * data == 1:
        return SINGLE
    if paddle.get_device() == "cpu":
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"  # Paddle's launcher leaves this out in some of its modes
        install()
    if not tells_all():
        set_log_level("ERROR")
    strategy = fleet.DistributedStrategy()
    strategy.hybrid_configs = {
        "dp_degree": data // shards,
        "sharding_degree": shards,
        "pp_degree": pipeline,
        "mp_degree": tensor,
        "order": ["dp", "pp", "sharding", "sep", "mp"],
    }
    # Paddle lists its flags on stderr, and warns of every group that this process is not in.
    with redirect_stderr(sys.stderr if tells_all() else io.StringIO()), warnings.catch_warnings():
        if not tells_all():
            warnings.simplefilter("ignore")
        fleet.init(is_collective=True, strategy=strategy, log_level="INFO" if tells_all() else "ERROR")
        groups = fleet.get_hybrid_communicate_group()
        return Topology(
            rank=groups.get_global_rank(),
            world=groups.nranks,
            tensor=_axis(groups.get_model_parallel_group()),
            pipeline=_axis(groups.get_pipe_parallel_group()),
            data=_data_axis(groups),
            replicas=_axis(groups.get_data_parallel_group()),
            shards=_axis(groups.get_sharding_parallel_group()),
            everyone=_axis(paddle.distributed.get_group(0)),
        )


def _data_axis(groups: Any) -> Axis:
    """Replicas and shards together, the shards of a replica beside each other; fleet has no group for both."""
    replicas, shards = groups.get_data_parallel_group(), groups.get_sharding_parallel_group()
    if replicas.nranks == 1 or shards.nranks == 1:
        return _axis(replicas if shards.nranks == 1 else shards)
    rank = groups.get_global_rank()
    # A group's number is how many were made before it, so all processes make all of them, in one order.
    made = {tuple(ranks): paddle.distributed.new_group(ranks) for ranks in sorted(groups.topology().get_fused_ranks(["data", "sharding"]))}
    return _axis(next(group for ranks, group in made.items() if rank in ranks))


def _axis(group: Any) -> Axis:
    size = group.nranks
    return Axis(size, max(group.rank, 0), group if size > 1 else None, tuple(group.ranks))
