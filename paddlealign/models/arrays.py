"""A CPU tensor's memory as NumPy sees it, and products of such matrices by Paddle's own MKL.

Paddle's CPU build multiplies well and is slow at nearly everything else: of one core its exp takes 1.9 ns an element where NumPy's takes
0.6, its maxima of rows 1.5 where NumPy's take 0.4, and its operators copy what does not lie together. NumPy lets other threads run.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor

# From MKL's cblas.h.
_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112


class _Memory:
    """What NumPy asks of an object to use its memory. It holds the tensor for as long as an array looks at it."""

    def __init__(self, x: Tensor) -> None:
        self.tensor = x
        self.__array_interface__ = {"data": (x.data_ptr(), False), "shape": tuple(x.shape), "typestr": "<f4", "version": 3}


def array_of(x: Tensor) -> np.ndarray:
    """The memory of a contiguous float32 tensor on the CPU, not a copy: what is written to it is the tensor's. Shape as x's."""
    assert are_arrays(x)
    return np.asarray(_Memory(x))


def are_arrays(*tensors: Tensor) -> bool:
    """Whether all are float32 on the CPU, and their elements lie together, so that ``array_of`` can show them."""
    return all(x.place.is_cpu_place() and x.dtype == paddle.float32 and x.is_contiguous() for x in tensors)


@functools.cache
def mkl() -> ctypes.CDLL | None:
    """The MKL that Paddle multiplies with; None on processors for which its build has none."""
    library = Path(paddle.__file__).parent / "libs" / "libmklml_intel.so"
    return ctypes.CDLL(str(library)) if library.exists() else None


@functools.cache
def _sgemm() -> Callable[..., None] | None:
    """MKL's product of float32 matrices."""
    library = mkl()
    if library is None:
        return None
    number, pointer, real = ctypes.c_int, ctypes.c_void_p, ctypes.c_float
    library.cblas_sgemm.restype = None
    library.cblas_sgemm.argtypes = [number] * 6 + [real, pointer, number, pointer, number, real, pointer, number]
    return library.cblas_sgemm


def multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray, scale: float = 1.0, add: bool = False) -> None:
    """Write ``scale * a @ b`` to out, or add it to what is there.

    a: [m, k]; b: [k, n]; out: [m, n]; all float32. The elements of out's rows lie together, of a and b those of rows or of columns.
    """
    sgemm = _sgemm()
    if sgemm is None:
        found = np.matmul(a, b)
        found *= scale
        np.add(out, found, out=out) if add else np.copyto(out, found)
        return
    (m, k), n = a.shape, b.shape[1]
    (a_way, a_stride), (b_way, b_stride) = _way(a), _way(b)
    sgemm(
        _ROW_MAJOR, a_way, b_way, m, n, k, scale, _place(a), a_stride, _place(b), b_stride, 1.0 if add else 0.0, _place(out),
        max(out.strides[0] // 4, n),
    )  # fmt: skip


def _place(x: np.ndarray) -> int:
    """Where an array's first element lies."""
    return x.__array_interface__["data"][0]


def _way(x: np.ndarray) -> tuple[int, int]:
    """How MKL is to read a matrix: as it is or transposed, and how many elements lie from row to row."""
    (rows, columns), (down, across) = x.shape, x.strides
    # The distance between rows is asked for, and must be as a whole row's length, even where there is but one.
    return (_AS_IT_IS, max(down // 4, columns)) if across == 4 else (_TRANSPOSED, max(across // 4, rows))
