"""Named arrays in safetensors files: described by the header, read by offset, written one tensor at a time, and never half written.

The format is a length, a JSON header and the raw bytes. Its library maps the whole file to read it and holds all tensors to write it, so
both are done here; tests hold the files to be the library's byte for byte, and read what it writes.
"""

import fcntl
import hashlib
import json
import math
import os
import re
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from paddlealign.errors import UserError
from paddlealign.models.tensor_places import TensorPlace, numpy_dtype, read_all, row_strides

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
# What else a file may hold, with its bits: kept under its own name, and never read.
_UNREAD_CODES = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E4M3FNUZ": 8,
    "C64": 64,
}
_NAMES = {code: name for name, code in CODES.items()}
# The library's own limit.
_LONGEST_HEADER = 100_000_000
_LFS_POINTER = b"version https://git-lfs"
# The name of a file while it is written: .<name>.<16 digits>.part
PART_SUFFIX = ".part"
_PART = re.compile(rf"\..+\.[0-9a-f]{{16}}{re.escape(PART_SUFFIX)}")
# Blocks from this size on are summed by a second thread while they are written.
_LARGE_BLOCK = 1 << 20


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


class Written(NamedTuple):
    """What was written to a file, known without reading it again. size: in bytes. sha256: of them, in hexadecimal."""

    size: int
    sha256: str


def read_header(path: Path) -> dict[str, TensorPlace]:
    """Where each tensor of a safetensors file lies, in the order of its header. What is not a whole, sound file is a UserError."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            first = file.read(len(_LFS_POINTER))
            if first == _LFS_POINTER:
                raise UserError(
                    f"{path}: this is Git LFS's pointer to the weights, not the weights. Fetch them: git lfs pull, in that folder."
                )
            length = int.from_bytes(first[:8], "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                said = f"its header would have {length:,} bytes, the file has {size:,}" if size >= 8 else f"it has {size} bytes"
                raise _damaged(path, said)
            file.seek(8)
            text = file.read(length)
    except FileNotFoundError:
        raise UserError(f"{path}: not found.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}.") from None
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    entries = {name: _entry(path, name, entry) for name, entry in header.items() if name != "__metadata__"}
    begun = 0
    for name, (_, begin, end) in sorted(entries.items(), key=lambda item: item[1][1:]):
        if begin != begun:
            raise _damaged(path, f"the bytes of {name} begin at {begin:,}, where {begun:,} was expected")
        begun = end
    if begun != size - 8 - length:
        raise _damaged(path, f"its tensors take {begun:,} bytes, {size - 8 - length:,} are there")
    return {
        name: TensorPlace(path, spec.dtype, spec.shape, 8 + length + begin, row_strides(spec.shape))
        for name, (spec, begin, _) in entries.items()
    }


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path}: not a whole safetensors file: {why}. It is damaged or was not copied or downloaded completely; fetch it again."
    )


def _entry(path: Path, name: str, entry: Any) -> tuple[TensorSpec, int, int]:
    """One entry of a header, checked: the tensor, and where its bytes begin and end behind the header."""
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise _damaged(path, f"its header does not describe {name} by dtype, shape and two data_offsets") from None
    if not isinstance(shape, list) or any(type(number) is not int or not 0 <= number < 2**63 for number in (*shape, begin, end)):
        raise _damaged(path, f"its header gives {name} the shape {shape} and the offsets {begin}, {end}")
    if code not in (*_NAMES, *_UNREAD_CODES):
        raise _damaged(path, f"its header gives {name} the dtype {code!r}, which the format does not have")
    spec = TensorSpec(name, _NAMES.get(code, code), tuple(shape))
    bits = _UNREAD_CODES.get(code) or 8 * numpy_dtype(spec.dtype).itemsize
    needed = (math.prod(shape) * bits + 7) // 8
    if end - begin != needed:
        raise _damaged(path, f"{name} as {code} {shape} takes {needed:,} bytes, but its header gives it {end - begin:,}")
    return spec, begin, end


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read a whole safetensors file: its arrays by name."""
    return {name: read_all(place) for name, place in read_header(Path(path)).items()}


def write_tensors(path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays to one safetensors file, atomically."""
    specs = [TensorSpec(name, array.dtype.name, array.shape) for name, array in tensors.items()]
    write_streamed(Path(path), specs, lambda name: [tensors[name]], metadata or {})


def write_streamed(
    path: Path | None, specs: Sequence[TensorSpec], produce: Callable[[str], Iterable[np.ndarray]], metadata: Mapping[str, str]
) -> Written | None:
    """Write a safetensors file whose tensors are made one at a time by ``produce(name)``, as their specs say, in blocks of rows.

    The file appears under its name only when it is complete and on the disk. path: None makes all tensors, writes nothing and gives None.
    """
    rank = list(CODES)
    ordered = sorted(specs, key=lambda spec: (-rank.index(spec.dtype), spec.name))
    if path is None:
        for spec in ordered:
            deque(produce(spec.name), maxlen=0)
        return None
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for spec in ordered:
        header[spec.name] = {"dtype": CODES[spec.dtype], "shape": list(spec.shape), "data_offsets": [offset, offset + spec.size]}
        offset += spec.size
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)

    def write(file: _Summed) -> None:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for spec in ordered:
            values = 0
            for block in produce(spec.name):
                if block.dtype.name != spec.dtype or block.shape[1:] != spec.shape[1:]:
                    raise ValueError(f"{spec.name}: {spec.dtype} {spec.shape} announced, {block.dtype.name} {block.shape} given")
                file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
                values += block.size
                del block  # before the next is made
            if values != math.prod(spec.shape):
                raise ValueError(f"{spec.name}: {spec.shape} announced, {values} values given")

    return _write_atomically(path, write)


def write_json(path: Path, value: Any) -> Written:
    """Write JSON as HuggingFace does (two spaces, a newline at the end), atomically."""
    return write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A file of JSON as ``write_json`` writes it."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines, atomically; the folder is made. Half a surrogate pair in a text stands there as JSON's escape."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> Written:
    """Write a file atomically."""
    return _write_atomically(path, lambda file: file.write(content))


class _Summed:
    """A file that is summed while it is written, so that it need not be read again."""

    def __init__(self, file: BinaryIO, helper: ThreadPoolExecutor) -> None:
        self._file, self._helper = file, helper
        self._digest, self._size = hashlib.sha256(), 0

    def write(self, block: bytes | memoryview) -> None:
        """Append the bytes. Both the sum and the write let Python's lock go, so that a large block takes the longer of the two."""
        self._size += len(block)
        if len(block) < _LARGE_BLOCK:
            self._digest.update(block)
            self._file.write(block)
            return
        summing = self._helper.submit(self._digest.update, block)
        self._file.write(block)
        summing.result()

    def written(self) -> Written:
        return Written(self._size, self._digest.hexdigest())


def _write_atomically(path: Path, write: Callable[[_Summed], Any]) -> Written:
    """Write beside the file, bring it to the disk, then rename it and bring the name to the disk."""
    # Process numbers repeat where several machines share a disk.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PART_SUFFIX}")
    try:
        with ThreadPoolExecutor(1) as helper, open(beside, "wb") as file:
            with suppress(OSError):  # a file system without locks; see ``remove_parts``
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            summed = _Summed(file, helper)
            write(summed)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}.") from error
    finally:
        # What is left of a write that failed; after a good one there is nothing.
        with suppress(OSError):
            beside.unlink()
    return summed.written()


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, so that a rename outlives a power cut; where a file system cannot, it is left to it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def remove_parts(folder: Path) -> list[str]:
    """Remove what writes that were killed left directly in a folder. Returns their names.

    A file that is being written, by whatever process, is locked, and stays.
    """
    removed = []
    for path in folder.glob(f".*{PART_SUFFIX}"):
        with suppress(OSError):  # in use, gone already, or not ours to remove
            if _PART.fullmatch(path.name):
                with open(path, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    path.unlink()
                removed.append(path.name)
    return removed
