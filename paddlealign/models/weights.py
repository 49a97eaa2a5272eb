"""Weights in and out, in HuggingFace's layout: safetensors, in one file or in shards with an index.

Parameters bear HuggingFace's names on both sides. The one conversion is the transpose of every 2-D weight but the embedding: Paddle
keeps a linear layer as [in, out], HuggingFace as [out, in]. Tensors pass one at a time, so no second copy of a model is in memory.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import paddle

from paddlealign.errors import UserError
from paddlealign.models.config import DTYPES, DecoderConfig, read_config
from paddlealign.models.config_values import model_directory, paddlenlp_layout, read_json_object
from paddlealign.models.decoder import Decoder
from paddlealign.models.tensor_files import TensorSpec, numpy_dtype, open_tensors, write_bytes, write_json, write_streamed

WHOLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# Buffers that old checkpoints carry; they follow from config.json.
HARMLESS_LEFTOVERS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|attention\.masked_bias|self_attn\.bias)$")
OUR_FILES = re.compile(r"^(model\.safetensors|model-\d{5}-of-\d{5}\.safetensors|model\.safetensors\.index\.json)$")
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
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def is_transposed(name: str, dimensions: int) -> bool:
    """Whether the tensor of that name is stored as the transpose of Paddle's parameter."""
    return dimensions == 2 and name != EMBEDDING


def find_weights(directory: str | Path) -> dict[str, Path]:
    """Which file holds which tensor: name to path, from the index or from the one file.

    Raises UserError where the directory has no safetensors weights, with the way to get them.
    """
    directory = model_directory(directory)
    index = directory / INDEX_FILE
    if (directory / WHOLE_FILE).is_file():
        # As transformers does: the whole file wins over an index.
        with open_tensors(directory / WHOLE_FILE) as file:
            return dict.fromkeys(file.keys(), directory / WHOLE_FILE)
    if index.is_file():
        return _indexed_weights(index)
    if any(directory.glob("pytorch_model*.bin")):
        raise UserError(
            f"{directory}: the weights are in pytorch_model.bin, a pickle, which is not read here. Convert them once to safetensors, "
            'where transformers and torch are installed: python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained('{directory}', dtype='auto').save_pretrained('NEW_DIRECTORY', safe_serialization=True)\", "
            "then copy the tokenizer files beside them."
        )
    paddle_files = sorted(path.name for path in directory.glob("*.pdparams"))
    if paddle_files:
        raise paddlenlp_layout(directory, f"it holds {paddle_files[0]}")
    if (directory / "adapter_model.safetensors").is_file():
        raise UserError(f"{directory}: this is an adapter without its base model. Give a whole model's directory.")
    found = ", ".join(sorted(path.name for path in directory.iterdir())[:8]) or "nothing"
    raise UserError(f"{directory}: no weights here. Expected {WHOLE_FILE}, or shards with {INDEX_FILE}; found {found}.")


def _indexed_weights(index: Path) -> dict[str, Path]:
    """The index's map, checked against the headers of the shards that it names."""
    mapping = read_json_object(index).get("weight_map")
    if not isinstance(mapping, dict) or not all(isinstance(file, str) for file in mapping.values()):
        raise UserError(f"{index}: weight_map is missing or is not an object of tensor names and file names.")
    places = {name: index.parent / file for name, file in mapping.items()}
    for path in sorted(set(places.values())):
        if not path.is_file():
            raise UserError(f"{path}: not found, but {index.name} names it. Fetch the missing shard.")
        with open_tensors(path) as file:
            held = set(file.keys())
        for name in (name for name, place in places.items() if place == path):
            if name not in held:
                raise UserError(f"{path}: the tensor {name} is not in it, but {index.name} says so. The shards are not of one model.")
    return places


def load_model(directory: str | Path, dtype: str) -> Decoder:
    """Build the decoder that a model directory describes, in ``dtype`` from the start, and read its weights.

    dtype: "float32", "bfloat16" or "float16", whatever is stored.
    """
    config = read_config(directory)
    before = paddle.get_default_dtype()
    paddle.set_default_dtype(getattr(paddle, dtype))
    try:
        model = Decoder(config)
    finally:
        paddle.set_default_dtype(before)
    load_weights(model, directory)
    return model


def load_weights(model: paddle.nn.Layer, directory: str | Path) -> None:
    """Read a model directory's weights into ``model``'s parameters.

    model: a Decoder; its parameters keep their dtype, whatever is stored. All names and shapes are checked before the first tensor is
    read. A tensor that is missing, left over or of another shape is a UserError.
    """
    directory = Path(directory)
    places = find_weights(directory)
    parameters = dict(model.named_parameters())
    spare = {HEAD} if HEAD not in parameters else set()
    _check_names(set(parameters), {name for name in places if name not in spare}, directory)
    for path in sorted(set(places.values())):
        with open_tensors(path) as file:
            names = [name for name in file.keys() if places.get(name) == path and name in parameters]
            for name in names:
                stored = file.get_slice(name)
                _check_tensor(name, tuple(parameters[name].shape), tuple(stored.get_shape()), stored.get_dtype(), path)
    for path in sorted(set(places.values())):
        with open_tensors(path) as file:
            for name in file.keys():
                if places.get(name) == path and name in parameters:
                    wanted = str(parameters[name].dtype).removeprefix("paddle.")
                    parameters[name].set_value(_to_paddle(_converted(file.get_tensor(name), name, wanted, str(path))))
    if spare & set(places):
        _check_tied(places)


def _check_names(wanted: set[str], found: set[str], directory: Path) -> None:
    """Raise UserError unless the tensors found are those wanted, up to known harmless buffers."""
    missing = sorted(wanted - found)
    left_over = sorted(name for name in found - wanted if not HARMLESS_LEFTOVERS.search(name))
    if missing and any(name.startswith(("llama.", "qwen2.")) for name in left_over):
        raise paddlenlp_layout(directory, f"a tensor is named {left_over[0]}")
    if missing:
        hint = " config.json may say tie_word_embeddings: true for this model." if missing == [HEAD] else ""
        raise UserError(f"{directory}: {_listed(missing)} missing from the weights; config.json asks for it.{hint}")
    if left_over:
        raise UserError(
            f"{directory}: {_listed(left_over)} in the weights, but a model as config.json describes it has no such parameter. "
            "config.json and the weights do not belong together, or this kind of model is not supported."
        )


def _listed(names: list[str]) -> str:
    """The first names, and how many more there are, with the verb."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'}"


def _check_tensor(name: str, shape: tuple[int, ...], stored: tuple[int, ...], code: str, path: Path) -> None:
    """Raise UserError unless the stored shape is the one wanted (in HuggingFace's order) and the dtype a float that is read here."""
    expected = shape[::-1] if is_transposed(name, len(shape)) else shape
    if stored != expected:
        hint = " (vocab_size in config.json is the first number)" if name in (EMBEDDING, HEAD) else ""
        raise UserError(f"{path}: {name} has the shape {list(stored)}; config.json makes it {list(expected)}{hint}.")
    if code not in ("F32", "F16", "BF16"):
        raise UserError(f"{path}: {name} is stored as {code}. Supported: F32, F16, BF16; quantised weights are not.")


def _check_tied(places: dict[str, Path]) -> None:
    """Raise UserError unless the stored head is the embedding bit for bit."""
    with open_tensors(places[HEAD]) as file:
        head = file.get_tensor(HEAD)
    with open_tensors(places[EMBEDDING]) as file:
        embedding = file.get_tensor(EMBEDDING)
    if head.dtype != embedding.dtype or head.shape != embedding.shape or head.tobytes() != embedding.tobytes():
        raise UserError(
            f"{places[HEAD]}: config.json says tie_word_embeddings: true, but {HEAD} differs from {EMBEDDING}. "
            "Set it to false to use the head as it is stored, or remove the head."
        )


def _converted(array: np.ndarray, name: str, dtype: str, where: str) -> np.ndarray:
    """The array as ``dtype``, transposed where the two layouts differ; the same in both directions."""
    with np.errstate(over="ignore"):
        converted = array.astype(numpy_dtype(dtype), copy=False)
    # Only float16 has a range so small that a sound weight can fall out of it.
    if dtype == "float16" and array.dtype != converted.dtype and np.isinf(converted).sum() > np.isinf(array).sum():
        raise UserError(f"{where}: {name} has values beyond float16's range (65504). Use bfloat16 or float32.")
    return np.ascontiguousarray(converted.T) if is_transposed(name, array.ndim) else converted


def _to_paddle(array: np.ndarray) -> np.ndarray:
    """Paddle takes and gives bfloat16 as its bits in uint16."""
    return array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array


def _to_numpy(tensor: paddle.Tensor | np.ndarray) -> np.ndarray:
    """Paddle's tensor as a NumPy array; bfloat16 as ml_dtypes' own."""
    if isinstance(tensor, np.ndarray):
        return tensor
    array = tensor.numpy()
    return array.view(ml_dtypes.bfloat16) if tensor.dtype == paddle.bfloat16 else array


def save_model(
    state: Mapping[str, paddle.Tensor | np.ndarray],
    config: DecoderConfig,
    directory: str | Path,
    side_files: Mapping[str, Path],
    dtype: str,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a model directory that HuggingFace transformers loads.

    state: parameters by HuggingFace's names in Paddle's layout, as ``Decoder.state_dict()`` gives them. side_files: name to the
    file that is copied under it (tokenizer files, chat template, generation_config.json). dtype: how the weights are stored. More than
    ``max_shard_bytes`` go into shards with an index. Each file is written beside and renamed; config.json comes last.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r}; one of {', '.join(DTYPES)} was expected")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    specs = []
    for name, tensor in state.items():
        shape = tuple(tensor.shape)
        specs.append(TensorSpec(name, dtype, shape[::-1] if is_transposed(name, len(shape)) else shape))

    def stored(name: str) -> np.ndarray:
        return _converted(_to_numpy(state[name]), name, dtype, str(directory))

    shards = _shards(specs, max_shard_bytes)
    files = {f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards, 1)}
    if len(shards) == 1:
        files = {WHOLE_FILE: specs}
    for file, shard in files.items():
        write_streamed(directory / file, shard, stored, {"format": "pt"})
    if len(shards) > 1:
        counted = {"total_parameters": sum(int(np.prod(s.shape)) for s in specs), "total_size": sum(spec.size for spec in specs)}
        weight_map = {spec.name: file for file, shard in files.items() for spec in shard}
        write_json(directory / INDEX_FILE, {"metadata": counted, "weight_map": dict(sorted(weight_map.items()))})
    # Weights of an earlier save under other names would be read instead of, or beside, these.
    for path in directory.iterdir():
        if OUR_FILES.match(path.name) and path.name not in files and not (path.name == INDEX_FILE and len(shards) > 1):
            path.unlink()
    for name, source in side_files.items():
        write_bytes(directory / name, source.read_bytes())
    write_json(directory / "config.json", _config_to_write(config, dtype, state[EMBEDDING].shape[0]))


def _shards(specs: list[TensorSpec], max_bytes: int) -> list[list[TensorSpec]]:
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


def _config_to_write(config: DecoderConfig, dtype: str, vocab_size: int) -> dict:
    """The source's config.json with the dtype and the vocabulary size of what is saved."""
    written = dict(config.source)
    keys = [key for key in ("dtype", "torch_dtype") if key in written] or ["dtype" if "rope_parameters" in written else "torch_dtype"]
    return {**written, **dict.fromkeys(keys, dtype), "vocab_size": int(vocab_size)}
