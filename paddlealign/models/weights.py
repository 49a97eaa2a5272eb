"""Weights in and out, in HuggingFace's layout: a model directory's tensors into a decoder's parameters, and back.

Two conversions lie between them. A linear layer is [in, out] in Paddle and [out, in] in files, so every 2-D weight but the embedding is
transposed; and a family may name and group its tensors in its own way (``models.layout``). Loading goes block by block into the
parameters' own memory, saving tensor by tensor out of it, so no second copy of a model is in memory.
"""

import ctypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import paddle

from paddlealign.errors import UserError
from paddlealign.models.config import DTYPES, DecoderConfig, read_config
from paddlealign.models.config_values import paddlenlp_layout
from paddlealign.models.decoder import Decoder
from paddlealign.models.families import FAMILIES
from paddlealign.models.layout import StoredTensor, segments, stored_tensors
from paddlealign.models.tensor_files import TensorSpec, write_bytes, write_json
from paddlealign.models.tensor_places import TensorPlace, blocks, numpy_dtype, read_rows
from paddlealign.models.weight_files import find_tensors, listed, write_weights

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Buffers that old checkpoints carry; they follow from config.json.
HARMLESS_LEFTOVERS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|attention\.(masked_)?bias|self_attn\.bias)$")
# Rows that are transposed together.
STRIPE = 64
# The bits of an exponent that means infinity or NaN.
_EXPONENTS = {"bfloat16": 0x7F80, "float16": 0x7C00}


def is_transposed(name: str, dimensions: int) -> bool:
    """Whether the tensor of that name is stored as the transpose of Paddle's parameter."""
    return dimensions == 2 and name != EMBEDDING


def find_weights(directory: str | Path, allow_pickle: bool = False) -> dict[str, Path]:
    """Which file holds which tensor: the file's name of it to the path. See ``weight_files.find_tensors``."""
    return {name: place.path for name, place in find_tensors(directory, allow_pickle).items()}


def load_model(directory: str | Path, dtype: str, vocab_size: int | None = None, allow_pickle: bool = False) -> Decoder:
    """Build the decoder that a model directory describes, in ``dtype`` from the start, and read its weights.

    dtype: "float32", "bfloat16" or "float16", whatever is stored. vocab_size: where it is above the model's own, embedding and head grow to
    it, and each new row is the mean of the stored ones (as transformers 5 does, which adds a little noise). allow_pickle: see
    ``weight_files.find_tensors``.
    """
    config = read_config(directory)
    stored_size = config.vocab_size
    config = replace(config, vocab_size=max(stored_size, vocab_size or 0))
    before = paddle.get_default_dtype()
    paddle.set_default_dtype(getattr(paddle, dtype))
    try:
        model = Decoder(config)
    finally:
        paddle.set_default_dtype(before)
    load_weights(model, directory, allow_pickle, stored_size)
    return model


def load_weights(model: Decoder, directory: str | Path, allow_pickle: bool = False, stored_vocab_size: int | None = None) -> None:
    """Read a model directory's weights into ``model``'s parameters.

    The parameters keep their dtype, whatever is stored. All names, shapes and dtypes are checked before the first value is read. A tensor
    that is missing, left over or of another shape, or that holds a NaN or an infinity, is a UserError. stored_vocab_size: rows of the
    stored embedding and head, where they are fewer than the model's; see ``load_model``.
    """
    directory = Path(directory)
    places = find_tensors(directory, allow_pickle)
    parameters = dict(model.named_parameters())
    tensors = _tensors_of({name: tuple(it.shape) for name, it in parameters.items()}, model.config)
    head = _tensors_of({HEAD: ()}, model.config)[0].name if HEAD not in parameters else None
    _check_names({tensor.name for tensor in tensors}, {name for name in places if name != head}, directory)
    rows = {name: _stored_shape(name, tuple(it.shape), stored_vocab_size) for name, it in parameters.items()}
    for tensor in tensors:
        shapes = [rows[part] for part in tensor.parts]
        _check_tensor(tensor, (sum(shape[0] for shape in shapes), *shapes[0][1:]), places[tensor.name])
    for tensor in sorted(tensors, key=lambda it: (places[it.name].path, places[it.name].offset)):
        _fill(tensor, {part: parameters[part] for part in tensor.parts}, [rows[part][0] for part in tensor.parts], places[tensor.name])
    if head is not None and head in places:
        _check_tied(places[head], places[_tensors_of({EMBEDDING: ()}, model.config)[0].name], head)


def _tensors_of(parameters: Mapping[str, tuple[int, ...]], config: DecoderConfig) -> list[StoredTensor]:
    """How a model of this config stores parameters; see ``layout.stored_tensors``."""
    return stored_tensors(parameters, FAMILIES[config.family].layout, config.num_heads)


def _stored_shape(name: str, shape: tuple[int, ...], vocab_size: int | None) -> tuple[int, ...]:
    """The shape in files of a parameter of Paddle's ``shape``; embedding and head have ``vocab_size`` rows where it is given."""
    stored = shape[::-1] if is_transposed(name, len(shape)) else shape
    return (vocab_size, *stored[1:]) if vocab_size and name in (EMBEDDING, HEAD) else stored


def _check_names(wanted: set[str], found: set[str], directory: Path) -> None:
    """Raise UserError unless the tensors found are those wanted, up to known harmless buffers."""
    missing = sorted(wanted - found)
    left_over = sorted(name for name in found - wanted if not HARMLESS_LEFTOVERS.search(name))
    if missing and any(name.startswith(("llama.", "qwen2.", "mistral.")) for name in left_over):
        raise paddlenlp_layout(directory, f"a tensor is named {left_over[0]}")
    if missing:
        hint = " config.json may say tie_word_embeddings: true for this model." if missing in ([HEAD], ["embed_out.weight"]) else ""
        raise UserError(f"{directory}: {listed(missing)} missing from the weights; config.json asks for it.{hint}")
    if left_over:
        raise UserError(
            f"{directory}: {listed(left_over)} in the weights, but a model as config.json describes it has no such parameter. "
            "config.json and the weights do not belong together, or this kind of model is not supported."
        )


def _check_tensor(tensor: StoredTensor, expected: tuple[int, ...], place: TensorPlace) -> None:
    """Raise UserError unless the tensor is stored in the expected shape and as a float that is read here."""
    if place.shape != expected:
        hint = " (vocab_size in config.json is the first number)" if tensor.parts[0] in (EMBEDDING, HEAD) else ""
        raise UserError(
            f"{place.path}: {tensor.name} has the shape {list(place.shape)}; config.json makes it {list(expected)}{hint}. "
            "Fetch config.json and the weights again, from one model."
        )
    if place.dtype not in DTYPES:
        raise UserError(
            f"{place.path}: {tensor.name} is stored as {place.dtype}. Supported: {', '.join(DTYPES)}; quantised weights are not. "
            "Take the model's checkpoint in one of these."
        )


def _check_tied(head: TensorPlace, embedding: TensorPlace, name: str) -> None:
    """Raise UserError unless the stored head is the embedding bit for bit."""
    same = head.dtype == embedding.dtype and head.shape == embedding.shape
    ranges = blocks(head, 0, head.shape[0]) if same else ()
    if not same or not all(read_rows(head, *rows).tobytes() == read_rows(embedding, *rows).tobytes() for rows in ranges):
        raise UserError(
            f"{head.path}: config.json says tie_word_embeddings: true, but {name} differs from the embedding. "
            "Set it to false to use the head as it is stored, or remove the head."
        )


def _fill(tensor: StoredTensor, parameters: Mapping[str, paddle.Tensor], sizes: list[int], place: TensorPlace) -> None:
    """Read one stored tensor into the parameters that lie in it. sizes: stored rows of each.

    This is the one place that reads weights: a process that holds a slice of a parameter reads fewer rows here.
    """
    arrays = [memory_of(parameter) for parameter in parameters.values()]
    rows = [array.T if is_transposed(name, array.ndim) else array for name, array in zip(parameters, arrays, strict=True)]
    broken = 0
    sums = np.zeros(place.shape[1:])
    for part, at, stored_at, count in segments(sizes, tensor.groups):
        for start, stop in blocks(place, stored_at, count):
            block = read_rows(place, start, stop)
            broken += _not_finite(block)
            copy_rows(block, rows[part][at + start - stored_at : at + stop - stored_at], tensor.name, place.path)
            if len(rows[part]) > sizes[part]:
                sums += block.sum(0, dtype=np.float64)
    if broken:
        raise UserError(
            f"{place.path}: {tensor.name} holds {broken:,} values that are NaN or infinite, so the model can compute nothing. "
            "Fetch the file again; where training made it, go back to an earlier checkpoint."
        )
    for array, view, size, parameter in zip(arrays, rows, sizes, parameters.values(), strict=True):
        view[size:] = sums / size
        if not lies_open(parameter):
            parameter.set_value(array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array)


def _not_finite(block: np.ndarray) -> int:
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
            if narrowed and _not_finite(target[start : start + STRIPE]) > _not_finite(stripe):
                raise UserError(f"{where}: {name} has values beyond float16's range (65504). Use bfloat16 or float32.")


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
    tensors = {tensor.name: tensor for tensor in _tensors_of({name: tuple(it.shape) for name, it in state.items()}, config)}
    shapes = {name: _stored_shape(name, tuple(it.shape), None) for name, it in state.items()}
    specs = [
        TensorSpec(name, dtype, (sum(shapes[part][0] for part in tensor.parts), *shapes[tensor.parts[0]][1:]))
        for name, tensor in tensors.items()
    ]

    def stored(name: str) -> np.ndarray:
        return _stored(tensors[name], [state[part] for part in tensors[name].parts], dtype, directory)

    write_weights(directory, specs, stored, {"format": "pt"}, max_shard_bytes)
    for name, source in side_files.items():
        write_bytes(directory / name, source.read_bytes())
    write_json(directory / "config.json", _config_to_write(config, dtype, state[EMBEDDING].shape[0]))


def _stored(tensor: StoredTensor, held: Sequence[paddle.Tensor | np.ndarray], dtype: str, directory: Path) -> np.ndarray:
    """A tensor as it is stored, put together in one new array from the parameters that lie in it."""
    arrays = [it if isinstance(it, np.ndarray) else memory_of(it) for it in held]
    rows = [array.T if is_transposed(part, array.ndim) else array for part, array in zip(tensor.parts, arrays, strict=True)]
    sizes = [len(part) for part in rows]
    result = np.empty((sum(sizes), *rows[0].shape[1:]), numpy_dtype(dtype))
    for part, at, stored_at, count in segments(sizes, tensor.groups):
        copy_rows(rows[part][at : at + count], result[stored_at : stored_at + count], tensor.name, directory)
    return result


def _config_to_write(config: DecoderConfig, dtype: str, vocab_size: int) -> dict:
    """The source's config.json with the dtype and the vocabulary size of what is saved."""
    written = dict(config.source)
    keys = [key for key in ("dtype", "torch_dtype") if key in written] or ["dtype" if "rope_parameters" in written else "torch_dtype"]
    return {**written, **dict.fromkeys(keys, dtype), "vocab_size": int(vocab_size)}
