"""Values between files and tensors: a tensor's own memory as an array, copies with conversion, and a look for NaN and infinity."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle

from paddlealign.errors import UserError
from paddlealign.models.tensor_places import numpy_dtype

# Rows that are transposed together.
STRIPE = 64
# Rows that are written at a time.
BLOCK_BYTES = 8 << 20
# The bits of an exponent that means infinity or NaN.
_EXPONENTS = {"bfloat16": 0x7F80, "float16": 0x7C00}


def count_broken(block: np.ndarray) -> int:
    """How many values are NaN or infinite. Of 16 bits the exponent tells, several times faster than a conversion."""
    exponent = _EXPONENTS.get(block.dtype.name)
    if exponent is None:
        return block.size - int(np.count_nonzero(np.isfinite(block)))
    return int(np.count_nonzero((block.view(np.uint16) & exponent) == exponent))


def copy_rows(source: np.ndarray, target: np.ndarray, name: str, where: str | Path) -> None:
    """Copy and convert, in stripes of rows: a transpose of the whole misses the cache at every value and is 8 times slower.

    A value beyond float16's range is a UserError that names the tensor and its file.
    """
    # Only float16 has a range so small that a sound weight can fall out of it.
    narrowed = target.dtype == np.float16 and source.dtype != np.float16
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(source), STRIPE):
            stripe = source[start : start + STRIPE]
            target[start : start + STRIPE] = stripe
            if narrowed and count_broken(target[start : start + STRIPE]) > count_broken(stripe):
                raise UserError(f"{where}: {name} has values beyond float16's range (65504). Use bfloat16 or float32.")


def converted_rows(source: np.ndarray, dtype: str, name: str, where: str | Path) -> Iterator[np.ndarray]:
    """The rows of an array in another dtype, in blocks of BLOCK_BYTES, each contiguous. See ``copy_rows``."""
    kind = numpy_dtype(dtype)
    step = max(STRIPE, BLOCK_BYTES // max(1, kind.itemsize * source[:1].size))
    for start in range(0, len(source), step):
        rows = source[start : start + step]
        block = np.empty(rows.shape, kind)
        copy_rows(rows, block, name, where)
        yield block


def lies_open(tensor: paddle.Tensor) -> bool:
    """Whether the tensor's values can be read and written where they lie: on the CPU, one after another."""
    return bool(tensor.place.is_cpu_place() and tensor.is_contiguous())


def memory_of(tensor: paddle.Tensor) -> np.ndarray:
    """The tensor's own memory as an array, valid as long as the tensor, or a copy where it does not lie open. bfloat16 is ml_dtypes'."""
    dtype = numpy_dtype(str(tensor.dtype).removeprefix("paddle."))
    if not lies_open(tensor):
        return tensor.numpy().view(dtype)
    raw = (ctypes.c_uint8 * (tensor.size * dtype.itemsize)).from_address(tensor.data_ptr())
    return np.ctypeslib.as_array(raw).view(dtype).reshape(tensor.shape)
