"""The parameters of a whole decoder by name and shape, and how tensor parallelism cuts each, from its config alone."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paddlealign.models.config import DecoderConfig

EMBEDDING, HEAD, SCORE = "model.embed_tokens.weight", "lm_head.weight", "score.weight"
# Of these each process of a tensor-parallel group computes a share of the outputs, of those a share of the inputs.
COLUMN_PARALLEL = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "lm_head")
ROW_PARALLEL = ("o_proj", "down_proj")
# A low-rank adapter's two matrices, beside the weight of their module.
LORA_A, LORA_B = "lora_A", "lora_B"


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters (Hu et al. 2021) beside linear layers.

    rslora: whether the scale is alpha / sqrt(rank) (Kalajdzievski 2023) instead of alpha / rank. dropout: the share of its inputs that an
    adapter does not see in training. targets: the modules that have one, by their own names in every layer ("q_proj"). whole: parameters
    of the decoder that are trained and saved with the adapters as they are, such as a score head (peft's modules_to_save).
    """

    rank: int
    alpha: float
    rslora: bool
    dropout: float
    targets: tuple[str, ...]
    whole: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        """The factor of what an adapter adds."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(frozen=True)
class Share:
    """Which part of a parameter a process holds: indices start to stop - 1 of an axis, in Paddle's layout; axis None is all of it.

    stop may lie beyond the parameter's size, where a vocabulary is padded to a multiple of the processes.
    """

    axis: int | None
    start: int
    stop: int


def parameter_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter of the whole decoder in ``state_dict``'s order: name to shape, linear weights [in, out]."""
    hidden, wide = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer = _linear("self_attn.q_proj", hidden, queries, config.qkv_bias) | _linear("self_attn.k_proj", hidden, keys, config.qkv_bias)
    layer |= _linear("self_attn.v_proj", hidden, keys, config.qkv_bias) | _linear("self_attn.o_proj", queries, hidden, config.output_bias)
    if config.qk_norm:
        layer |= {"self_attn.q_norm.weight": (config.head_dim,), "self_attn.k_norm.weight": (config.head_dim,)}
    if config.activation == "swiglu":
        layer |= _linear("mlp.gate_proj", hidden, wide, config.mlp_bias)
    layer |= _linear("mlp.up_proj", hidden, wide, config.mlp_bias) | _linear("mlp.down_proj", wide, hidden, config.mlp_bias)
    layer |= _norm("input_layernorm", config) | _norm("post_attention_layernorm", config)
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, hidden)}
    for number in range(config.num_layers):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    shapes |= _norm("model.norm", config)
    if config.head == "score":
        return {**shapes, SCORE: (hidden, 1)}
    return shapes if config.tie_embeddings else {**shapes, HEAD: (hidden, config.vocab_size)}


def head_name(config: DecoderConfig) -> str:
    """The parameter that the head multiplies by; of a tied one the embedding."""
    return SCORE if config.head == "score" else EMBEDDING if config.tie_embeddings else HEAD


def linear_modules(config: DecoderConfig) -> tuple[str, ...]:
    """The names of a layer's linear modules, to which adapters can be attached."""
    start = "model.layers.0."
    named = [name.rsplit(".", 2)[-2:] for name, shape in parameter_shapes(config).items() if name.startswith(start) and len(shape) == 2]
    return tuple(module for module, _ in named)


def adapter_shapes(config: DecoderConfig, settings: LoraSettings) -> dict[str, tuple[int, ...]]:
    """What is trained of the whole decoder under adapters, in the order of the weights: name to shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in parameter_shapes(config).items():
        if name in settings.whole:
            shapes[name] = shape
        path, _, kind = name.rpartition(".")
        if kind == "weight" and len(shape) == 2 and path.rpartition(".")[2] in settings.targets:
            shapes |= {f"{path}.{LORA_A}": (shape[0], settings.rank), f"{path}.{LORA_B}": (settings.rank, shape[1])}
    return shapes


def _linear(name: str, inputs: int, outputs: int, bias: bool) -> dict[str, tuple[int, ...]]:
    weight: dict[str, tuple[int, ...]] = {f"{name}.weight": (inputs, outputs)}
    return {**weight, f"{name}.bias": (outputs,)} if bias else weight


def _norm(name: str, config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    weight: dict[str, tuple[int, ...]] = {f"{name}.weight": (config.hidden_size,)}
    return {**weight, f"{name}.bias": (config.hidden_size,)} if config.norm == "layer" else weight


def padded_vocabulary(vocab_size: int, parts: int) -> int:
    """The rows of an embedding that ``parts`` processes share evenly."""
    return -(-vocab_size // parts) * parts


def cut_problem(config: DecoderConfig, parts: int, stages: int, shards: int = 1, lora: LoraSettings | None = None) -> str | None:
    """Why so many processes cannot share each layer, the layers, or the parameters of a stage; None where they can.

    Every process of a tensor-parallel group must hold as many heads, and as much of the MLP, as the others; every stage a layer; every
    shard must keep a parameter of its stage, and one of its adapters where only these are trained (lora).
    """
    if stages > config.num_layers:
        return f"pipeline_parallel_degree {stages}: the model has {config.num_layers} layers, and every stage needs one."
    sizes = {
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "intermediate_size": config.intermediate_size,
    }
    for name, size in sizes.items():
        if size % parts:
            possible = [degree for degree in range(1, 65) if not any(it % degree for it in sizes.values())]
            return (
                f"tensor_parallel_degree {parts}: the model's {name} {size} is {parts} x {size // parts} + {size % parts} and cannot be "
                f"cut evenly. For this model it may be {', '.join(map(str, possible))}."
            )
    kept = parameter_shapes(config) if lora is None else adapter_shapes(config, lora)
    fewest = min(Counter(holding_stage(name, config.num_layers, stages) for name in kept).values())
    if shards > fewest:
        return (
            f"sharding_parallel_degree {shards}: a stage of the model has {fewest} parameters that are trained, and every process must "
            f"keep one. Set it to {fewest} or less, to a divisor of the processes that read different rows."
        )
    return None


def cut_layers(num_layers: int, parts: int, part: int) -> tuple[int, int]:
    """The layers of one of ``parts`` stages, the first and the one behind its last; where it does not divide, later ones have one more."""
    return num_layers * part // parts, num_layers * (part + 1) // parts


def holding_stage(name: str, num_layers: int, parts: int) -> int:
    """The stage that holds a parameter; of a tied embedding, which the last stage holds too, the first."""
    if name.startswith("model.layers."):
        # The first stage whose last layer (see ``cut_layers``) is not before this one.
        return -(-(int(name.split(".")[2]) + 1) * parts // num_layers) - 1
    return 0 if name == EMBEDDING else parts - 1


def held_shapes(
    shapes: Mapping[str, tuple[int, ...]], config: DecoderConfig, parts: int, stages: int, stage: int
) -> dict[str, tuple[int, ...]]:
    """Of parameters of the whole decoder those that a process of ``stage`` holds, and the shapes of its shares.

    shapes: see ``parameter_shapes`` and ``adapter_shapes``. parts: how many processes share each layer.
    """
    held: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        again = name == EMBEDDING and config.tie_embeddings and stage == stages - 1
        if again or holding_stage(name, config.num_layers, stages) == stage:
            cut = cut_axis(name)
            held[name] = tuple(-(-size // parts) if axis == cut else size for axis, size in enumerate(shape))
    return held


def sums_over_parts(name: str, sequence_parallel: bool) -> bool:
    """Whether a parameter that every process of a tensor axis holds whole has a gradient of its share of the work only.

    So it is with norms of queries and keys, which see a process's own heads, and with the half of an adapter that is not cut; under
    sequence parallelism also with what stands between the cut layers and sees a process's own positions. A score head sees them all.
    """
    if name.endswith(("self_attn.q_norm.weight", "self_attn.k_norm.weight")):
        return True
    if name.endswith((LORA_A, LORA_B)):
        return cut_axis(name) is None
    return sequence_parallel and cut_axis(name) is None and name != SCORE


def share_of(name: str, shape: tuple[int, ...], part: int, parts: int) -> Share:
    """Which part of a parameter the process ``part`` of ``parts`` holds. shape: of the whole parameter, in Paddle's layout."""
    axis = cut_axis(name)
    if axis is None or parts == 1:
        return Share(None, 0, 0)
    size = -(-shape[axis] // parts)
    return Share(axis, part * size, (part + 1) * size)


def take_share(whole: np.ndarray, share: Share) -> np.ndarray:
    """A process's share of a whole array in Paddle's layout; what lies beyond the array is zeros."""
    if share.axis is None:
        return whole
    indices = slice(share.start, min(share.stop, whole.shape[share.axis]))
    taken = whole[(slice(None),) * share.axis + (indices,)]
    padding = [(0, share.stop - share.start - taken.shape[axis] if axis == share.axis else 0) for axis in range(whole.ndim)]
    return np.ascontiguousarray(np.pad(taken, padding) if any(after for _, after in padding) else taken)


def cut_axis(name: str) -> int | None:
    """The axis, in Paddle's layout, that tensor parallelism cuts; None for what every process holds whole."""
    module, kind = name.rsplit(".", 2)[-2:]
    if name == EMBEDDING:
        return 0
    if module in COLUMN_PARALLEL:
        return {"weight": 1, "bias": 0, LORA_A: None, LORA_B: 1}[kind]
    return 0 if module in ROW_PARALLEL and kind in ("weight", LORA_A) else None
