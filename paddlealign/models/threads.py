"""Work in threads of the CPU, each on a part of it with products of matrices on one core.

Paddle's CPU build multiplies on all cores and does nearly everything else on one. What is the same for every head or row is therefore
done for some of them on each core.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import paddle

from paddlealign.machine import product_threads
from paddlealign.models.arrays import mkl

Result = TypeVar("Result")


def in_threads(work: Callable[[range], Result], count: int, place: paddle.base.core.Place) -> list[Result]:
    """``work`` for ``range(count)``, heads or rows, cut into ranges in order, one for each thread: the results in that order.

    Without a gradient and in the dtypes that work's tensors have, autocast or not. On a GPU, or where there is but one thread, the
    caller's own thread does it all. An error in a thread is raised here.
    """
    pool = _pool(os.getpid()) if place.is_cpu_place() and count > 1 else None
    if pool is None:
        return [_alone(work, range(count))]
    parts = min(count, product_threads(os.environ))
    cuts = [count * part // parts for part in range(parts + 1)]
    return list(pool.map(functools.partial(_alone, work), map(range, cuts[:-1], cuts[1:])))


def _alone(work: Callable[[range], Result], part: range) -> Result:
    # Numbers that are not finite are told of by training.guard, not by NumPy.
    with paddle.no_grad(), paddle.amp.auto_cast(enable=False), np.errstate(all="ignore"):
        return work(part)


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor | None:
    """The threads of this process, made when they are first wanted; None where one is all there is. process: a fork has none of its own."""
    count = product_threads(os.environ)
    library = mkl()
    if count < 2 or library is None:
        return None
    # Products inside a thread stay on its core. It holds for the calling thread alone.
    return ThreadPoolExecutor(count, thread_name_prefix="parts", initializer=library.MKL_Set_Num_Threads_Local, initargs=(1,))
