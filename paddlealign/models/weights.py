"""Weights in and out, in HuggingFace's layout: a model directory's tensors into a decoder's parameters, and back.

Two conversions lie between them. A linear layer is [in, out] in Paddle and [out, in] in files, so every 2-D weight but the embedding is
transposed; and a family may name and group its tensors in its own way (``models.layout``). Loading goes block by block into the
parameters' own memory, saving tensor by tensor out of it, so no second copy of a model is in memory.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
import paddle

from paddlealign.errors import UserError
from paddlealign.models.config import DTYPES, DecoderConfig, read_config
from paddlealign.models.config_values import paddlenlp_layout
from paddlealign.models.decoder import Decoder
from paddlealign.models.families import FAMILIES
from paddlealign.models.layout import StoredTensor, segments, stored_tensors
from paddlealign.models.makers import WHOLE_LAYERS, Stage, TensorLayers, Visits
from paddlealign.models.parameters import EMBEDDING, HEAD, SCORE, Share, cut_layers, parameter_shapes, share_of
from paddlealign.models.tensor_files import TensorSpec, Written, write_bytes, write_json
from paddlealign.models.tensor_memory import converted_rows, copy_rows, count_broken, lies_open, memory_of
from paddlealign.models.tensor_places import TensorPlace, blocks, read_rows
from paddlealign.models.threads import in_threads
from paddlealign.models.tricks import ALL_TRICKS, Tricks
from paddlealign.models.weight_files import find_tensors, other_tensors, write_weights

# So many readers share the tensors, each with a few blocks in memory.
READERS = 4
# Buffers that old checkpoints carry; they follow from config.json.
HARMLESS_LEFTOVERS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|attention\.(masked_)?bias|self_attn\.bias)$")


def is_transposed(name: str, dimensions: int) -> bool:
    """Whether the tensor of that name is stored as the transpose of Paddle's parameter."""
    return dimensions == 2 and name != EMBEDDING


def find_weights(directory: str | Path, allow_pickle: bool = False) -> dict[str, Path]:
    """Which file holds which tensor: the file's name of it to the path. See ``weight_files.find_tensors``."""
    return {name: place.path for name, place in find_tensors(directory, allow_pickle).items()}


def load_model(
    directory: str | Path,
    dtype: str,
    vocab_size: int | None = None,
    allow_pickle: bool = False,
    make: TensorLayers = WHOLE_LAYERS,
    stage: tuple[int, int] = (1, 0),
    visits: Visits | None = None,
    config: DecoderConfig | None = None,
    tricks: Tricks = ALL_TRICKS,
) -> Decoder:
    """Build the decoder that a model directory describes, in ``dtype`` from the start, and read its weights.

    dtype: "float32", "bfloat16" or "float16", whatever is stored. vocab_size: where it is above the model's own, embedding and head grow
    to it, and each new row is the mean of the stored ones (as transformers 5 does, which adds a little noise). allow_pickle: see
    ``weight_files.find_tensors``. make: the layers that tensor parallelism cuts; of these only this process's share is read. stage: how
    many stages hold the model's layers, and which of them this is; only its layers are read. visits: see ``makers.Visits``; of weights that
    were let go none is read. config: the directory's with a score head in the place of its language head (``score_head.with_score_head``),
    which stays zero; None: as the directory says. tricks: see ``models.tricks``.
    """
    stored = read_config(directory)
    config = replace(config or stored, vocab_size=max(stored.vocab_size, vocab_size or 0))
    plan = plan_loading(config, directory, allow_pickle, stored)  # before memory is taken for a model of a wrong config.json
    before = paddle.get_default_dtype()
    paddle.set_default_dtype(getattr(paddle, dtype))
    try:
        model = Decoder(config, make, Stage(*cut_layers(config.num_layers, *stage)), visits, tricks)
    finally:
        paddle.set_default_dtype(before)
    _follow(plan, model)
    return model


def load_weights(model: Decoder, directory: str | Path, allow_pickle: bool = False, stored: DecoderConfig | None = None) -> None:
    """Read a model directory's weights into ``model``'s parameters.

    The parameters keep their dtype, whatever is stored. A tensor that is missing, left over or of another shape, or that holds a NaN or an
    infinity, is a UserError. stored: see ``plan_loading``.
    """
    _follow(plan_loading(model.config, directory, allow_pickle, stored), model)


@dataclass(frozen=True)
class LoadingPlan:
    """Which stored tensors fill which parameters. shapes: of the whole parameters as files count them, by our names."""

    tensors: tuple[StoredTensor, ...]
    places: Mapping[str, TensorPlace]
    shapes: Mapping[str, tuple[int, ...]]


def plan_loading(config: DecoderConfig, directory: str | Path, allow_pickle: bool, stored: DecoderConfig | None) -> LoadingPlan:
    """Look at the headers of a model directory's weights: all names, shapes and dtypes must be those of ``config``. Reads no value but
    those of a stored head that must be the embedding.

    stored: what the directory's config.json says, where the model may have more tokens, or a score head in the place of the stored language
    head, which is then not read. Raises UserError.
    """
    places = find_tensors(directory, allow_pickle)
    new_head = stored is not None and stored.head != config.head
    whole = {name: shape for name, shape in parameter_shapes(config).items() if not (new_head and name == SCORE)}
    tensors = tuple(_tensors_of(whole, config))
    head = _tensors_of({HEAD: ()}, config)[0].name if new_head or config.tie_embeddings else None
    shapes = {name: _stored_shape(name, shape, stored.vocab_size if stored else None) for name, shape in whole.items()}
    parts = {tensor.name: [shapes[part] for part in tensor.parts] for tensor in tensors}
    wanted = {name: (sum(shape[0] for shape in of), *of[0][1:]) for name, of in parts.items()}
    _check_tensors(wanted, {name: place for name, place in places.items() if name != head}, config, Path(directory))
    if head in places and config.tie_embeddings:
        _check_tied(places[head], places[_tensors_of({EMBEDDING: ()}, config)[0].name], head)
    return LoadingPlan(tensors, places, shapes)


def _follow(plan: LoadingPlan, model: Decoder) -> None:
    """Read the tensors that lie in the parameters that this process has memory for, in the files' order, on a CPU a few at a time."""
    parameters, whole = dict(model.named_parameters()), parameter_shapes(model.config)
    fills = []
    for tensor in sorted(plan.tensors, key=lambda it: (plan.places[it.name].path, plan.places[it.name].offset)):
        if any(part in parameters and parameters[part]._is_initialized() for part in tensor.parts):
            shares = [share_of(part, whole[part], model.make.part, model.make.parts) for part in tensor.parts]
            targets = [
                _Target(part, parameters[part], plan.shapes[part][0], whole[part], share)
                for part, share in zip(tensor.parts, shares, strict=True)
            ]
            fills.append((tensor, targets, plan.places[tensor.name]))

    def fill(readers: range) -> None:
        for reader in readers:
            for tensor, targets, place in fills[reader::READERS]:
                _fill(tensor, targets, place)

    if fills:  # a parameter that was let go has no place
        in_threads(fill, READERS, next(it.place for it in parameters.values() if it._is_initialized()))


def _tensors_of(parameters: Mapping[str, tuple[int, ...]], config: DecoderConfig) -> list[StoredTensor]:
    """How a model of this config stores parameters; see ``layout.stored_tensors``."""
    return stored_tensors(parameters, FAMILIES[config.family].layout, config.num_heads)


def _stored_shape(name: str, shape: tuple[int, ...], vocab_size: int | None) -> tuple[int, ...]:
    """The shape in files of a parameter of Paddle's ``shape``; embedding and head have ``vocab_size`` rows where it is given."""
    stored = shape[::-1] if is_transposed(name, len(shape)) else shape
    return (vocab_size, *stored[1:]) if vocab_size and name in (EMBEDDING, HEAD) else stored


def _check_tensors(
    wanted: Mapping[str, tuple[int, ...]], places: Mapping[str, TensorPlace], config: DecoderConfig, directory: Path
) -> None:
    """Raise UserError unless the tensors found are those wanted, up to known harmless buffers, each in its shape and a float."""
    kept = {name: place for name, place in places.items() if name in wanted or not HARMLESS_LEFTOVERS.search(name)}
    differing = other_tensors(wanted, kept, DTYPES, "config.json")
    if not differing:
        return
    strange = next((name for name in kept if name.startswith(("llama.", "qwen2.", "mistral."))), None)
    if strange and wanted.keys() - kept.keys():
        raise paddlenlp_layout(directory, f"a tensor is named {strange}")
    ends = [_tensors_of({name: ()}, config)[0].name for name in (EMBEDDING, HEAD)]
    hint = ""
    if list(wanted.keys() - kept.keys()) == ends[1:]:
        hint = " config.json may say tie_word_embeddings: true for this model."
    elif any(name in kept and kept[name].shape != wanted.get(name, kept[name].shape) for name in ends):
        hint = " The first number of embedding and head is vocab_size in config.json."
    raise UserError(
        f"{directory}: config.json and the weights do not belong together, or this kind of model is not supported:{differing}\n"
        f"Take both from one checkpoint.{hint}"
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


class _Target(NamedTuple):
    """A parameter that is to be filled. stored_rows: of the whole parameter, in its file. shape: of the whole, in Paddle's layout."""

    name: str
    parameter: paddle.Tensor
    stored_rows: int
    shape: tuple[int, ...]
    share: Share

    @property
    def is_here(self) -> bool:
        """Whether the parameter has memory in this process."""
        return self.parameter._is_initialized()

    @property
    def is_transposed(self) -> bool:
        return is_transposed(self.name, len(self.shape))

    @property
    def whole_rows(self) -> int:
        """Rows of the whole parameter, as files count them."""
        return self.shape[1] if self.is_transposed else self.shape[0]

    @property
    def grows(self) -> bool:
        """Whether the model has more rows than the file."""
        return self.stored_rows < self.whole_rows

    @property
    def rows(self) -> tuple[int, int]:
        """The rows, as files count them, that this process holds; the last may lie beyond the whole."""
        cut = self.share.axis is not None and (self.share.axis == 1) == self.is_transposed
        return (self.share.start, self.share.stop) if cut else (0, self.whole_rows)

    @property
    def columns(self) -> slice:
        """The columns, as files count them, that this process holds."""
        cut = self.share.axis is not None and len(self.shape) == 2 and (self.share.axis == 0) == self.is_transposed
        return slice(self.share.start, self.share.stop) if cut else slice(None)


def _fill(tensor: StoredTensor, targets: Sequence[_Target], place: TensorPlace) -> None:
    """Read one stored tensor into the parameters that lie in it, of each the rows and columns that this process holds."""
    arrays = [memory_of(target.parameter) if target.is_here else np.zeros(0) for target in targets]
    views = [array.T if target.is_transposed else array for target, array in zip(targets, arrays, strict=True)]
    broken = 0
    sums = np.zeros(place.shape[1:])
    for part, at, stored_at, count in segments([target.stored_rows for target in targets], tensor.groups):
        target, (low, high) = targets[part], targets[part].rows
        if not target.is_here:
            continue
        first, last = (at, at + count) if target.grows else (max(at, low), min(at + count, high))
        for start, stop in blocks(place, stored_at + first - at, max(0, last - first)):
            block = read_rows(place, start, stop)
            broken += count_broken(block)
            row = at + start - stored_at
            kept = block[max(0, low - row) : max(0, high - row)]
            begin = max(row, low) - low
            copy_rows(kept[:, target.columns] if kept.ndim == 2 else kept, views[part][begin : begin + len(kept)], tensor.name, place.path)
            if target.grows:
                sums += block.sum(0, dtype=np.float64)
    if broken:
        raise UserError(
            f"{place.path}: {tensor.name} holds {broken:,} values that are NaN or infinite, so the model can compute nothing. "
            "Fetch the file again; where training made it, go back to an earlier checkpoint."
        )
    for target, array, view in zip(targets, arrays, views, strict=True):
        if not target.is_here:
            continue
        if target.grows:
            view[max(0, target.stored_rows - target.rows[0]) : max(0, target.whole_rows - target.rows[0])] = sums / target.stored_rows
        if not lies_open(target.parameter):
            target.parameter.set_value(array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array)


def save_model(
    state: Callable[[str], paddle.Tensor | np.ndarray | None],
    config: DecoderConfig,
    directory: str | Path | None,
    side_files: Mapping[str, bytes],
    dtype: str,
    max_shard_bytes: int = 5_000_000_000,
) -> dict[str, Written]:
    """Write a model directory that HuggingFace transformers loads. Returns what was written, by file name.

    state: gives the whole model's parameter of a name, in Paddle's layout; each is asked for once, in the files' order. directory: None
    asks for all and writes nothing, for a process that has only a share to give. side_files: what
    is written beside (tokenizer files, chat template, generation_config.json), by name. dtype: how the weights are stored. More than
    ``max_shard_bytes`` go into shards with an index. Each file is written beside and renamed; config.json comes last.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r}; one of {', '.join(DTYPES)} was expected")
    directory = None if directory is None else Path(directory)
    tensors = {tensor.name: tensor for tensor in _tensors_of(parameter_shapes(config), config)}
    shapes = {name: _stored_shape(name, shape, None) for name, shape in parameter_shapes(config).items()}
    specs = [
        TensorSpec(name, dtype, (sum(shapes[part][0] for part in tensor.parts), *shapes[tensor.parts[0]][1:]))
        for name, tensor in tensors.items()
    ]

    def stored(name: str) -> Iterator[np.ndarray]:
        held = [state(part) for part in tensors[name].parts]  # alive as long as their memory is read
        if directory is not None:
            arrays = [memory_of(it) if isinstance(it, paddle.Tensor) else it for it in held if it is not None]
            yield from _stored(tensors[name], arrays, dtype, directory)

    written = write_weights(directory, specs, stored, {"format": "pt"}, max_shard_bytes)
    if directory is not None:
        for name, content in side_files.items():
            written[name] = write_bytes(directory / name, content)
        written["config.json"] = write_json(directory / "config.json", _config_to_write(config, dtype))
    return written


def _stored(tensor: StoredTensor, held: Sequence[np.ndarray], dtype: str, where: str | Path) -> Iterator[np.ndarray]:
    """A tensor as it is stored, in blocks of rows, from the parameters that lie in it."""
    rows = [array.T if is_transposed(part, array.ndim) else array for part, array in zip(tensor.parts, held, strict=True)]
    for part, at, _, count in segments([len(part) for part in rows], tensor.groups):
        yield from converted_rows(rows[part][at : at + count], dtype, tensor.name, where)


def _config_to_write(config: DecoderConfig, dtype: str) -> dict:
    """The source's config.json with the dtype and the vocabulary size of what is saved."""
    # The code that auto_map names is not copied, since it is never run.
    written = {key: value for key, value in config.source.items() if key != "auto_map"}
    keys = [key for key in ("dtype", "torch_dtype") if key in written] or ["dtype" if "rope_parameters" in written else "torch_dtype"]
    return {**written, **dict.fromkeys(keys, dtype), "vocab_size": config.vocab_size}
