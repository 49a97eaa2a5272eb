"""PyTorch's ``.bin`` files, read without torch and without calling anything that the file names.

Since version 1.6 ``torch.save`` writes a zip archive: a pickle that describes the tensors, and the bytes of each storage uncompressed
beside it. A pickle is a small program, which may name any function to be called. Here it may use the instructions that torch.save uses, and
a handful of names, all of them our own stand-ins; asking for more is an error. What comes out are places in the file, read later like
safetensors'.
"""

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddlealign.errors import UserError
from paddlealign.models.tensor_places import TensorPlace, numpy_dtype

_STORAGES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
# The instructions of torch.save's pickles, in protocols 2 to 5. Others can make the unpickler take any amount of memory.
_INSTRUCTIONS = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID", "BINPUT", "LONG_BINPUT",
    "MEMOIZE", "BINGET", "LONG_BINGET", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_SET", "SHORT_BINUNICODE", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINFLOAT", "NEWTRUE", "NEWFALSE", "NONE",
})  # fmt: skip
_LONGEST_PICKLE = 100_000_000  # bytes; a tensor's description takes about 200
# What a pickle that is no state dict, or damaged, makes the unpickler raise.
_FAULTS = (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError, ImportError, MemoryError, RuntimeError)


@dataclass(frozen=True)
class _Storage:
    """The bytes of one storage: where they begin, how many values of which dtype they are."""

    dtype: str
    offset: int
    length: int


def read_pickle(path: Path) -> dict[str, TensorPlace]:
    """Where each tensor of a ``.bin`` file lies. Tensors may share their bytes.

    Raises UserError for a file that wants to call anything but the making of tensors (named), for the formats of torch before 1.6, and for
    what is damaged or no state dict.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise _no_archive(path)
        with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
            members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            if "data.pkl" not in members:
                raise UserError(f"{path}: this zip archive holds no data.pkl, so it is no file of torch.save.")
            compressed = UserError(f"{path}: its tensors are compressed, which torch.save never does. Save it again with torch.")

            def content(name: str, most: int) -> bytes:
                if members[name].compress_type != zipfile.ZIP_STORED:
                    raise compressed
                # A member of a sound archive has as many bytes as it says; what is read is bounded before it is made room for.
                if members[name].file_size > most or members[name].compress_size > most:
                    raise ValueError(f"{name} would have {members[name].file_size:,} bytes")
                return archive.read(members[name])

            if "byteorder" in members and content("byteorder", 100) != b"little":
                raise UserError(f"{path}: written on a big-endian machine, which is not read here. Save it as safetensors.")

            def storage(tag: Any) -> _Storage:
                kind, dtype, key, _, length = tag
                member = members[f"data/{key}"]
                if kind != "storage" or dtype not in _STORAGES.values() or type(length) is not int:
                    raise ValueError("a storage without type and length")
                if member.compress_type != zipfile.ZIP_STORED:
                    raise compressed
                if member.file_size != length * numpy_dtype(dtype).itemsize:
                    raise ValueError(f"storage {key}: {member.file_size} bytes, {length} values of {dtype}")
                return _Storage(dtype, _first_byte(raw, member), length)

            described = content("data.pkl", min(_LONGEST_PICKLE, path.stat().st_size))
            for instruction, number, _ in pickletools.genops(described):
                if instruction.name not in _INSTRUCTIONS or (instruction.name == "LONG_BINPUT" and int(number or 0) > len(described)):
                    raise ValueError(f"the instruction {instruction.name}")
            state = _Unpickler(io.BytesIO(described), path, storage).load()
    except (*_FAULTS, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged, or not written by torch.save ({error}). Fetch it again, or use safetensors.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}.") from None
    # By dict's own method: the pickle can give its dict attributes of any name.
    items = list(dict.items(state)) if isinstance(state, dict) else []
    if not items or not all(isinstance(name, str) and isinstance(place, TensorPlace) for name, place in items):
        raise UserError(f"{path}: holds something else than a state dict, which is tensors by name. Save model.state_dict() alone.")
    return dict(items)


def _no_archive(path: Path) -> UserError:
    """What is wrong with a file that is no zip archive."""
    with open(path, "rb") as file:
        begin = file.read(32)
    if begin.startswith(b"version https://git-lfs"):
        return UserError(f"{path}: this is Git LFS's pointer to the weights, not the weights. Fetch them: git lfs pull, in that folder.")
    if begin[:1] == b"\x80" or begin.startswith((b"storages", b"./")):
        return UserError(
            f"{path}: in the format of torch before 1.6, which is not read. Load and save it once with a newer torch, best as safetensors."
        )
    return UserError(f"{path}: not a whole file of torch.save. It is damaged or was not downloaded completely; fetch it again.")


def _first_byte(raw: Any, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its local header, whose name and padding have lengths of their own."""
    raw.seek(member.header_offset)
    header = raw.read(30)
    if header[:4] != b"PK\x03\x04":
        raise ValueError(f"no local header at {member.header_offset}")
    return member.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the names in a state dict and nothing else."""

    def __init__(self, file: Any, path: Path, storage: Callable[[Any], _Storage]) -> None:
        super().__init__(file, encoding="utf-8")
        self.path, self.storage = path, storage

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name in the pickle, a new one each time, since a pickle can change it; UserError for every other name."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: self.tensor(*arguments)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, _gradient, _hooks: data
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        raise UserError(
            f"{self.path}: wants to call {module}.{name}. A file of weights has no need to, so it is not read. Do not open it with another "
            "program; get the weights as safetensors, from a source that you trust."
        )

    def persistent_load(self, tag: Any) -> _Storage:
        """The storage that a tag ("storage", type, key, device, length) means."""
        return self.storage(tag)

    def tensor(
        self,
        storage: _Storage,
        first: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        _gradient: bool,
        _hooks: Any,
        _more: Any = None,
    ) -> TensorPlace:
        """Stands in for torch._utils._rebuild_tensor_v2: values ``first``, ... of a storage, with strides in values."""
        numbers = (first, *shape, *strides)
        if any(type(number) is not int or number < 0 for number in numbers) or len(shape) != len(strides):
            raise ValueError("a tensor without a proper shape and strides")
        last = first + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if 0 not in shape and last >= storage.length:
            raise ValueError(f"a tensor reaches beyond its storage of {storage.length} values")
        offset = storage.offset + first * numpy_dtype(storage.dtype).itemsize
        return TensorPlace(self.path, storage.dtype, tuple(shape), offset, tuple(strides))
