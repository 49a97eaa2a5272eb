"""Where in a file a tensor's values lie, and reading them from there some rows at a time, without mapping or holding the file.

Mapped pages count as the process's memory for as long as the file is open; what is read by offset is gone with its array.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from paddlealign.errors import UserError

# Rows are read in blocks of about so many bytes.
BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class TensorPlace:
    """One tensor in a file, little-endian.

    dtype: NumPy's name, "bfloat16", or the file's own name where NumPy has no such dtype. offset: of the first value, in bytes.
    strides: of each dimension, in values.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]


def numpy_dtype(name: str) -> np.dtype:
    """The NumPy dtype of that name; "bfloat16" is ml_dtypes' own."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def row_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in values, of an array whose rows lie one after another."""
    return tuple(int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape)))


def read_rows(place: TensorPlace, start: int, stop: int) -> np.ndarray:
    """Rows ``start`` to ``stop`` of a tensor of one dimension or more; raises UserError where the file ends before them."""
    return _read(place, (stop - start, *place.shape[1:]), start * place.strides[0])


def read_all(place: TensorPlace) -> np.ndarray:
    """The whole tensor."""
    return _read(place, place.shape, 0)


def _read(place: TensorPlace, shape: tuple[int, ...], skipped: int) -> np.ndarray:
    """An array of that shape, beginning ``skipped`` values after the tensor's first."""
    dtype = numpy_dtype(place.dtype)
    if 0 in shape:
        return np.empty(shape, dtype)
    count = 1 + sum((size - 1) * stride for size, stride in zip(shape, place.strides, strict=True))
    try:
        raw = np.fromfile(place.path, np.uint8, count * dtype.itemsize, offset=place.offset + skipped * dtype.itemsize)
    except OSError as error:
        raise UserError(f"{place.path}: cannot be read: {error.strerror or error}.") from None
    if raw.size != count * dtype.itemsize:
        raise UserError(f"{place.path}: ends before its last tensor. It was not copied or downloaded completely; fetch it again.")
    values = raw.view(dtype)
    if place.strides == row_strides(place.shape):
        return values.reshape(shape)
    return np.lib.stride_tricks.as_strided(values, shape, [stride * dtype.itemsize for stride in place.strides], writeable=False)


def blocks(place: TensorPlace, start: int, rows: int) -> Iterator[tuple[int, int]]:
    """Rows ``start`` to ``start + rows`` in ranges of BLOCK_BYTES, at least a row each.

    A tensor whose rows do not lie one after another is one range: the bytes of any of its rows may be spread over all of them.
    """
    step = rows
    if place.strides == row_strides(place.shape):
        step = max(1, BLOCK_BYTES // max(1, place.strides[0] * numpy_dtype(place.dtype).itemsize))
    for first in range(start, start + rows, max(1, step)):
        yield first, min(first + step, start + rows)
