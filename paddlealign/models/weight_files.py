"""The weight files of a model directory: which holds which tensor, and new ones written, in one file or in shards with an index."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from paddlealign.arguments.model_files import read_json_object
from paddlealign.arguments.paths import ADAPTER_CONFIG
from paddlealign.errors import UserError
from paddlealign.models.config_values import model_directory, paddlenlp_layout
from paddlealign.models.pickle_files import read_pickle
from paddlealign.models.tensor_files import TensorSpec, Written, read_header, write_json, write_streamed
from paddlealign.models.tensor_places import TensorPlace

WHOLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
WHOLE_PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
# What lies beside the weights and is copied as it is, by whoever saves a model.
GENERATION_FILE = "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
# An adapter's, in peft's layout.
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_SHOWN = 10
# Names that weights are saved under here.
OUR_FILES = re.compile(r"^(model\.safetensors|model-\d{5}-of-\d{5}\.safetensors|model\.safetensors\.index\.json)$")


def find_tensors(directory: str | Path, allow_pickle: bool) -> dict[str, TensorPlace]:
    """Where each tensor of a model directory lies, by the name that the files give it.

    The order of preference is transformers': model.safetensors, its shards, pytorch_model.bin, its shards. The latter two are pickles and
    are a UserError without ``allow_pickle``, though nothing that a pickle names is called here (``models.pickle_files``). So are a
    directory without weights, a damaged file, and shards that do not agree with their index.
    """
    directory = model_directory(directory)
    if (directory / WHOLE_FILE).is_file():
        return read_header(directory / WHOLE_FILE)
    if (directory / INDEX_FILE).is_file():
        return _indexed(directory / INDEX_FILE, read_header)
    pickles = sorted(path.name for path in directory.glob("pytorch_model*.bin*"))
    if pickles and not allow_pickle:
        raise UserError(
            f"{directory}: the weights are pickles ({pickles[0]}), which are read only where allow_pickle is true, since a pickle can ask "
            "for any code to be run. Set allow_pickle to true, which reads tensors and refuses all else, or take the model as safetensors; "
            f"python -m paddlealign.export --model_name_or_path {directory} --allow_pickle true --output_dir DIR writes it so."
        )
    if (directory / WHOLE_PICKLE).is_file():
        return read_pickle(directory / WHOLE_PICKLE)
    if (directory / PICKLE_INDEX).is_file():
        return _indexed(directory / PICKLE_INDEX, read_pickle)
    paddle_files = sorted(path.name for path in directory.glob("*.pdparams"))
    if paddle_files:
        raise paddlenlp_layout(directory, f"it holds {paddle_files[0]}")
    if (directory / ADAPTER_WEIGHTS).is_file():
        raise UserError(
            f"{directory}: this is an adapter without its base model. Give the base as model_name_or_path, and this folder as lora_path."
        )
    for pattern, index in (("model-*-of-*.safetensors", INDEX_FILE), ("pytorch_model-*-of-*.bin", PICKLE_INDEX)):
        shards = sorted(path.name for path in directory.glob(pattern))
        if shards:
            raise UserError(f"{directory}: {index} is missing, which names the shards ({shards[0]} ...) and what they hold. Fetch it.")
    found = ", ".join(sorted(path.name for path in directory.iterdir())[:8]) or "nothing"
    raise UserError(f"{directory}: no weights here. Expected {WHOLE_FILE}, or shards with {INDEX_FILE}; found {found}.")


def _indexed(index: Path, read: Callable[[Path], dict[str, TensorPlace]]) -> dict[str, TensorPlace]:
    """The tensors of the shards that an index names, held against its map of names and files."""
    mapping = read_json_object(index).get("weight_map")
    if not isinstance(mapping, dict) or not all(isinstance(file, str) and Path(file).name == file for file in mapping.values()):
        raise UserError(f"{index}: weight_map is missing or is not an object of tensor names and names of files beside it. Fetch it again.")
    places: dict[str, TensorPlace] = {}
    for file in sorted(set(mapping.values())):
        path = index.parent / file
        if not path.is_file():
            raise UserError(f"{path}: not found, but {index.name} names it. Fetch the missing shard.")
        held = read(path)
        twice = sorted(held.keys() & places.keys())
        if twice:
            raise UserError(
                f"{path}: {listed(twice)} in {places[twice[0]].path.name} too. The shards are not of one model, or one lies under "
                "another's name; fetch them again."
            )
        lacking = sorted(name for name, place in mapping.items() if place == file and name not in held)
        if lacking:
            raise UserError(
                f"{path}: {listed(lacking)} not in it, but {index.name} says so. The shards are not of one model; fetch them again."
            )
        places |= held
    return places


def listed(names: list[str]) -> str:
    """The first names, and how many more there are, with the verb."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'}"


def other_tensors(wanted: Mapping[str, tuple[int, ...]], places: Mapping[str, TensorPlace], dtypes: Sequence[str], says: str) -> str:
    """What is missing, left over, of another shape or of a dtype that is not read: a line each; empty where all is as it is wanted.

    wanted: name to shape. says: what asks for the shapes, for the message.
    """
    both = sorted(wanted.keys() & places.keys())
    kinds = {
        "missing": sorted(wanted.keys() - places.keys()),
        "left over": sorted(places.keys() - wanted.keys()),
        "of another shape": [
            f"{name} has the shape {list(places[name].shape)}; {says} makes it {list(wanted[name])}"
            for name in both
            if places[name].shape != wanted[name]
        ],
        f"of another dtype than {', '.join(dtypes)}, which are read (quantised weights are not)": [
            f"{name} is stored as {places[name].dtype}" for name in both if places[name].dtype not in dtypes
        ],
    }
    lines = [
        f"\n  {len(found):,} {kind}: {', '.join(found[:_SHOWN])}{f', and {len(found) - _SHOWN:,} more' if len(found) > _SHOWN else ''}"
        for kind, found in kinds.items()
        if found
    ]
    return "".join(lines)


def files_beside(model_dir: str | Path, tokenizer_dir: str | Path) -> dict[str, bytes]:
    """The generation_config.json of a model's folder and the files of a tokenizer's, by name: what is copied when the model is saved."""
    files = {name: Path(tokenizer_dir) / name for name in TOKENIZER_FILES} | {GENERATION_FILE: Path(model_dir) / GENERATION_FILE}
    return {name: path.read_bytes() for name, path in files.items() if path.is_file()}


def write_weights(
    directory: Path | None,
    specs: Sequence[TensorSpec],
    produce: Callable[[str], Iterable[np.ndarray]],
    metadata: Mapping[str, str],
    max_shard_bytes: int,
) -> dict[str, Written]:
    """Write tensors as model.safetensors, or above ``max_shard_bytes`` as shards with an index. Returns what was written, by file name.

    produce: makes the tensor of a name, in blocks of rows; one after another. Files of an earlier save under other names are removed: they
    would be read instead of, or beside, these. directory: None makes all tensors in the same order and writes nothing.
    """
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
    shards = _shards(specs, max_shard_bytes)
    files = {f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards, 1)}
    if len(shards) == 1:
        files = {WHOLE_FILE: shards[0]}
    written: dict[str, Written] = {}
    for file, shard in files.items():
        found = write_streamed(None if directory is None else directory / file, shard, produce, metadata)
        written |= {} if found is None else {file: found}
    if directory is None:
        return written
    if len(shards) > 1:
        counted = {"total_parameters": sum(math.prod(spec.shape) for spec in specs), "total_size": sum(spec.size for spec in specs)}
        weight_map = {spec.name: file for file, shard in files.items() for spec in shard}
        written[INDEX_FILE] = write_json(directory / INDEX_FILE, {"metadata": counted, "weight_map": dict(sorted(weight_map.items()))})
    for path in directory.iterdir():
        ours = OUR_FILES.match(path.name) or path.name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
        if ours and path.name not in files and not (path.name == INDEX_FILE and len(shards) > 1):
            path.unlink()
    return written


def _shards(specs: Sequence[TensorSpec], max_bytes: int) -> list[list[TensorSpec]]:
    """Fill shards in order, as HuggingFace does: a new one begins where the next tensor does not fit."""
    shards: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in specs:
        if shards[-1] and filled + spec.size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(spec)
        filled += spec.size
    return shards
