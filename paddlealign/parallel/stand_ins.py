"""What Paddle's CPU build lacks for parallel training, and what stands in for it. On a GPU nothing here is used.

Each stand-in names its gap, as found in Paddle 3.3.1; tests/distributed/test_start.py uses each of them.
"""

import ctypes
import os
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

import paddle
from paddle.base import core
from paddle.distributed import collective

# fleet's functions call these by name; as compiled they know GPU process groups only.
_COLLECTIVES = ("all_gather_into_tensor", "all_reduce", "broadcast", "recv", "reduce", "send")
_STORE_SECONDS = 900  # Paddle's own patience with the processes of a group
_WAIT_MILLISECONDS = 30 * 60 * 1000  # as long as NCCL's groups wait; where a process fails or is killed the others end at once: faults.py


def install() -> None:
    """Put the stand-ins in place. For a process that computes on the CPU, before its groups are made; once."""
    for name in _COLLECTIVES:
        setattr(core.ProcessGroupGloo, f"{name}_on_calc_stream", _waited(getattr(core.ProcessGroupGloo, name)))
    # c_identity has no CPU kernel. Forward it changes nothing; PyLayer needs another tensor than it was given.
    paddle._C_ops.c_identity = lambda tensor, *_: tensor.clone()
    setattr(core.ProcessGroupGloo, "create", staticmethod(_patient(core.ProcessGroupGloo.create)))  # noqa: B010 - as above
    paddle.distributed.new_group = collective.new_group = _with_own_store(collective.new_group)
    paddle.distributed.reduce_scatter = _reduce_scatter  # type: ignore[assignment]


def _waited(collect: Callable[..., Any]) -> Callable[..., Any]:
    """A collective that is over when it returns, which is what "on the stream of the computation" means on a CPU."""

    def run(*args: Any) -> Any:
        task = collect(*args, True)
        task.wait()
        return task

    return run


def _reduce_scatter(tensor: paddle.Tensor, parts: list[paddle.Tensor], *, group: Any) -> None:
    """``paddle.distributed.reduce_scatter``, which Paddle does not have over gloo: each process's own part of the sum, into ``tensor``."""
    total = paddle.stack(parts)
    paddle.distributed.all_reduce(total, group=group)
    paddle.assign(total[group.rank], tensor)


def _patient(create: Callable[..., Any]) -> Callable[..., Any]:
    """``ProcessGroupGloo.create`` for groups that wait for a process which saves, evaluates or computes for long.

    Gloo gives up after 30 s, its Context's default, which Paddle neither sets nor shows to Python. So Context::setTimeout is called in
    Paddle's own library. The way to the Context: pybind11 keeps the C++ object behind the PyObject's two words, and a GlooCommContext
    holds a vtable, rank and size, and then the Context, which begins alike. Rank and size are looked at before anything is called.
    """
    library = ctypes.CDLL(sys.modules[core.ProcessGroupGloo.__module__].__file__)
    comm_context = library._ZN6paddle11distributed16ProcessGroupGloo14GetCommContextEv
    set_timeout = library._ZN4gloo7Context10setTimeoutENSt6chrono8durationIlSt5ratioILl1ELl1000EEEE
    comm_context.argtypes, comm_context.restype = [ctypes.c_void_p], ctypes.c_void_p
    set_timeout.argtypes, set_timeout.restype = [ctypes.c_void_p, ctypes.c_long], None

    def make(store: Any, rank: int, size: int, *rest: Any) -> Any:
        group = create(store, rank, size, *rest)
        holder: int = comm_context(ctypes.c_void_p.from_address(id(group) + 16))
        context: int = ctypes.c_size_t.from_address(holder + 16).value
        for place in (holder, context):
            if list((ctypes.c_int * 2).from_address(place + 8)) != [rank, size]:
                raise RuntimeError("this version of Paddle lays out its gloo groups in an unknown way; install requirements.txt")
        set_timeout(context, _WAIT_MILLISECONDS)
        return group

    return make


def _with_own_store(new_group: Callable[..., Any]) -> Callable[..., Any]:
    """``paddle.distributed.new_group`` that gives each group a store of its own.

    The processes of a gloo group meet under keys without the group's name, so groups that are made at the same time in one store read
    each other's addresses, and hang. The group's first process opens a store and tells the others its address in the common one.
    """
    stores: list[Any] = []  # a store must live as long as its group
    count = 0

    def make(ranks: list[int] | None = None, *args: Any, nccl_comm_init_option: int = 0, nccl_config: Any = None) -> Any:
        nonlocal count
        count += 1  # every process makes every group, in one order
        common, environment = collective._default_store, collective._get_global_env()
        members = sorted(ranks) if ranks is not None else list(range(environment.world_size))
        if len(members) > 1 and environment.rank in members:
            key = f"store of group {count}: {members}"
            own = _open_store(common, key) if environment.rank == members[0] else _find_store(common, key)
            stores.append(own)
            collective._default_store = own
        try:
            return new_group(ranks, *args, nccl_comm_init_option=nccl_comm_init_option, nccl_config=nccl_config)
        finally:
            collective._default_store = common

    return make


def _open_store(common: Any, key: str) -> Any:
    """Open a store on a free port of this machine and tell its address under ``key``."""
    host = os.environ["PADDLE_CURRENT_ENDPOINT"].rsplit(":", 1)[0]
    with closing(socket.socket()) as holder:
        # A port that another process takes in between would end this one, with an abort. Bound by a socket that does not listen, and that
        # shares, it is kept for the store, which shares too.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("", 0))
        port = holder.getsockname()[1]
        own = core.TCPStore(host, port, True, 1, _STORE_SECONDS)  # 1: wait for nobody, since nobody knows the address yet
    common.set(key, f"{host}:{port}".encode())
    return own


def _find_store(common: Any, key: str) -> Any:
    host, port = common.get(key).decode().rsplit(":", 1)
    return core.TCPStore(host, int(port), False, 1, _STORE_SECONDS)
