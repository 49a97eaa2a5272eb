"""Named arrays in safetensors files: read one tensor at a time, written one tensor at a time, and never half written.

The safetensors library reads. It cannot write without holding every tensor of the file in memory at once, and the format is a
length, a JSON header and the raw bytes; so the writing is done here, and a test holds the files to be the library's byte for byte.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from paddlealign.errors import UserError

# In the library's order: within a file, tensors stand by dtype (last of these first), then by name.
CODES: dict[str, str] = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
}


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor will be in its file. dtype: NumPy's name, or "bfloat16"."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * numpy_dtype(self.dtype).itemsize


def numpy_dtype(name: str) -> np.dtype:
    """The NumPy dtype of that name; "bfloat16" is ml_dtypes' own."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file for reading; a damaged one is a UserError.

    Gives the library's handle: keys(), metadata(), get_slice(name).get_shape(), get_tensor(name) as a NumPy array.
    """
    try:
        with safe_open(str(path), framework="np") as file:
            yield file
    except SafetensorError as error:
        raise UserError(
            f"{path}: not a whole safetensors file ({error}). It is damaged or was not copied or downloaded completely; fetch it again."
        ) from None
    except FileNotFoundError:
        raise UserError(f"{path}: not found.") from None


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read a whole safetensors file: its arrays by name."""
    with open_tensors(Path(path)) as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def write_tensors(path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays to one safetensors file, atomically."""
    specs = [TensorSpec(name, array.dtype.name, array.shape) for name, array in tensors.items()]
    write_streamed(Path(path), specs, lambda name: tensors[name], metadata or {})


def write_streamed(path: Path, specs: Sequence[TensorSpec], produce: Callable[[str], np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose tensors are made one at a time by ``produce(name)``, as their specs say.

    The file appears under its name only when it is complete and on the disk.
    """
    rank = list(CODES)
    ordered = sorted(specs, key=lambda spec: (-rank.index(spec.dtype), spec.name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for spec in ordered:
        header[spec.name] = {"dtype": CODES[spec.dtype], "shape": list(spec.shape), "data_offsets": [offset, offset + spec.size]}
        offset += spec.size
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)

    def write(file: Any) -> None:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for spec in ordered:
            array = produce(spec.name)
            if array.dtype.name != spec.dtype or array.shape != spec.shape:
                raise ValueError(f"{spec.name}: {spec.dtype} {spec.shape} announced, {array.dtype.name} {array.shape} given")
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    _write_atomically(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as HuggingFace does (two spaces, a newline at the end), atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    _write_atomically(path, lambda file: file.write(content))


def _write_atomically(path: Path, write: Callable[[Any], Any]) -> None:
    """Write beside the file, bring it to the disk, then rename it and bring the name to the disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}.") from None
    finally:
        # What is left of a write that failed; after a good one there is nothing.
        with suppress(OSError):
            beside.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
