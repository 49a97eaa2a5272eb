"""Weights as torch.save writes them, without torch: for tests that want a pytorch_model.bin of any checkpoint."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import find_weights

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage"}


def _bare(value: object) -> bytes:
    """The pickle of a value without what begins and ends a pickle."""
    return pickle.dumps(value, 2)[2:-1]


def tensor_pickle(name: str, key: str, dtype: str, length: int, first: object, shape: tuple, strides: tuple) -> bytes:
    """The instructions of one item of a state dict: a name and a tensor over the storage ``key``."""
    storage = _bare("storage") + f"ctorch\n{STORAGES[dtype]}\n".encode() + b"".join(map(_bare, (key, "cpu", length)))
    described = b"".join(b"(" + b"".join(map(_bare, numbers)) + b"t" for numbers in (shape, strides))
    return (
        _bare(name)
        + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + storage
        + b"tQ"
        + _bare(first)
        + described
        + b"\x89ccollections\nOrderedDict\n)RtRs"
    )


def write_archive(path: Path, described: bytes, members: Mapping[str, bytes] | None = None) -> Path:
    """A zip archive of torch.save's form. described: the pickle; members: what else is in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", described)
        for name, content in (members or {}).items():
            archive.writestr(f"archive/{name}", content)
    return path


def write_torch_file(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """A state dict of these tensors, each in a storage of its own."""
    items, members = b"", {}
    for key, (name, array) in enumerate(tensors.items()):
        strides = tuple(stride // array.itemsize for stride in array.strides)
        items += tensor_pickle(name, str(key), array.dtype.name, array.size, 0, array.shape, strides)
        members[f"data/{key}"] = array.tobytes()
    return write_archive(path, b"\x80\x02}" + items + b".", members)


def as_torch_folder(checkpoint: Path, target: Path, shards: int = 1) -> Path:
    """A copy of a model folder with its weights in pytorch_model.bin, or in shards with an index, and no safetensors."""
    shutil.copytree(checkpoint, target)
    tensors = {name: array for path in set(find_weights(checkpoint).values()) for name, array in read_tensors(path).items()}
    for path in target.glob("*.safetensors*"):
        path.unlink()
    if shards == 1:
        write_torch_file(target / "pytorch_model.bin", tensors)
        return target
    index = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        members = dict(list(tensors.items())[number::shards])
        write_torch_file(target / file, members)
        index |= dict.fromkeys(members, file)
    (target / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    return target
