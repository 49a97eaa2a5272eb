"""What config.json says about a decoder, read strictly: every key is understood, or refused by name.

The shape of a model is one small dataclass. What a family (LLaMA, Qwen2, ...) may say is one row of ``families.FAMILIES``. Both spellings
are read: transformers 4 (``rope_theta``, ``rope_scaling``, ``torch_dtype``) and transformers 5 (``rope_parameters``, ``dtype``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddlealign.arguments.model_files import read_json_object, shown
from paddlealign.errors import UserError
from paddlealign.models.config_values import (
    model_directory,
    paddlenlp_layout,
    positive_int,
    positive_number,
    true_or_false,
    wrong_value,
)
from paddlealign.models.families import COMMON, FAMILIES, PADDLENLP_KEYS, Family
from paddlealign.models.rope import Rope, extended_positions, read_rope

DTYPES = ("float32", "bfloat16", "float16")
MOST_LAYERS = 10_000  # far above any model; a number with a digit too many should not cost memory


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder.

    norm: "rms" or "layer" (with a bias). activation: of the MLP, "swiglu" (which has a gate), "gelu" or "gelu_tanh" (its approximation).
    max_positions: with what the rope scaling adds. windows: for each layer how many positions back it sees, its own included; None: all.
    qkv_bias, output_bias: biases of the query/key/value and of the output projection of attention.
    mlp_bias: biases of the projections of the MLP. qk_norm: each head's queries and keys are normed before they are turned.
    parallel_residual: attention and MLP both read the layer's input.
    head: "language" (a logit for each token of the vocabulary) or "score" (one number, a reward model's).
    dtype: "float32", "bfloat16" or "float16", as config.json calls the stored weights.
    source: config.json as it was read; it is what a saved model's config.json is made from.
    """

    family: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    norm: str
    norm_eps: float
    activation: str
    rope: Rope
    max_positions: int
    windows: tuple[int | None, ...]
    tie_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    parallel_residual: bool
    head: str
    dtype: str
    source: dict[str, Any] = field(repr=False, compare=False)


def read_config(directory: str | Path) -> DecoderConfig:
    """Read ``config.json`` of a model directory.

    Raises UserError where the directory or the file is missing, where the model_type is not supported, and for every
    key that is not understood or says what the decoder does not do.
    """
    path = model_directory(directory) / "config.json"
    if not path.is_file():
        raise UserError(f"{path}: not found. A model directory in HuggingFace's layout has a config.json; this one has not.")
    return parse_config(read_json_object(path), str(path))


def parse_config(source: Mapping[str, Any], where: str) -> DecoderConfig:
    """Make a DecoderConfig from the contents of a config.json; ``where`` names the file in error messages."""
    if "model_type" not in source:
        raise UserError(f"{where}: the key model_type is missing. It says what kind of model this is: {', '.join(sorted(FAMILIES))}.")
    family_name = source["model_type"]
    if not isinstance(family_name, str) or family_name not in FAMILIES:
        raise UserError(f"{where}: model_type is {family_name!r}. Supported: {', '.join(sorted(FAMILIES))}.")
    family = FAMILIES[family_name]
    for key in PADDLENLP_KEYS:
        if key in source:
            raise paddlenlp_layout(where, f"it has the key {key}")
    _refuse_unknown(source, family_name, where)
    for key in family.required:
        if source.get(key) is None:
            raise UserError(f"{where}: the key {key} is missing. A {family_name} model cannot be built without it.")

    head = _head(source, family, where)
    hidden_size = positive_int(source, "hidden_size", 0, where)
    num_layers = positive_int(source, "num_hidden_layers", 0, where)
    if num_layers > MOST_LAYERS:
        raise wrong_value(where, "num_hidden_layers", num_layers, f"at most {MOST_LAYERS}")
    num_heads, num_kv_heads, head_dim = _heads(source, hidden_size, where)
    flags = {key: true_or_false(source, key, default, where) for key, default in family.flags.items()}
    positions = positive_int(source, "max_position_embeddings", family.positions, where)
    rope = read_rope(source, head_dim, positions, where, family.rotary_share, family.rope_types)
    activation = source.get("hidden_act", next(iter(family.activations)))
    if not isinstance(activation, str) or activation not in family.activations:
        allowed = " or ".join(family.activations)
        raise UserError(f"{where}: hidden_act is {shown(activation)}. For {family_name} only {allowed} is supported.")
    return DecoderConfig(
        family=family_name,
        vocab_size=positive_int(source, "vocab_size", 0, where),
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        intermediate_size=positive_int(source, "intermediate_size", 0, where),
        norm=family.norm,
        norm_eps=positive_number(source, family.norm_key, family.norm_eps, where),
        activation=family.activations[activation],
        rope=rope,
        max_positions=extended_positions(rope, positions),
        windows=_windows(source, family, flags.get("use_sliding_window", True), num_layers, where),
        tie_embeddings=flags["tie_word_embeddings"] and head == "language",
        qkv_bias=family.qkv_bias or flags.get("attention_bias", False),
        output_bias=flags.get("attention_bias", False),
        mlp_bias=family.mlp_bias or flags.get("mlp_bias", False),
        qk_norm=family.qk_norm,
        parallel_residual=flags.get("use_parallel_residual", False),
        head=head,
        dtype=_dtype(source, where),
        source=dict(source),
    )


def _refuse_unknown(source: Mapping[str, Any], family_name: str, where: str) -> None:
    """Raise UserError for the first key that is not understood, or whose value the decoder cannot honour."""
    family = FAMILIES[family_name]
    if source.get("auto_map") is not None and "auto_map" not in family.harmless:
        raise UserError(
            f"{where}: auto_map asks for Python code from the model's folder to be run, which is never done here. If the model is a plain "
            f"{family_name}, remove auto_map; otherwise it is not supported."
        )
    known = COMMON | family.optional | family.harmless | {*family.required, *family.flags, "auto_map"}
    for key, value in source.items():
        if key in family.fixed:
            if value not in family.fixed[key]:
                allowed = " or ".join(shown(choice) for choice in family.fixed[key])
                raise UserError(f"{where}: {key} is {shown(value)}. For {family_name} only {allowed} is supported.")
        elif key not in known:
            raise UserError(
                f"{where}: the key {key} (value {shown(value)}) is not understood for {family_name}, so it might change "
                "what the model computes. If you know that it does not, remove it from config.json."
            )


def _head(source: Mapping[str, Any], family: Family, where: str) -> str:
    """What ``architectures`` makes of the hidden states; where it is not said, a language model."""
    architectures = source.get("architectures") or [family.architectures[0]]
    if not isinstance(architectures, list):
        raise wrong_value(where, "architectures", architectures, "a list of class names")
    if all(name in family.architectures for name in architectures):
        return "language"
    if architectures != [family.score_architecture]:
        other = next(name for name in architectures if name not in family.architectures)
        raise UserError(
            f"{where}: architectures names {other}. Supported here: {family.architectures[0]} (a language model) and "
            f"{family.score_architecture} (a reward model)."
        )
    named = source.get("id2label")
    labels = len(named) if isinstance(named, dict) else source.get("num_labels", 2)  # 2 is what transformers makes of neither
    if labels != 1:
        raise UserError(
            f"{where}: this is a classifier with {labels} labels (id2label). Of {family.score_architecture} only a reward model is "
            "supported, which has one."
        )
    return "score"


def _heads(source: Mapping[str, Any], hidden_size: int, where: str) -> tuple[int, int, int]:
    """Heads, key/value heads, and the size of a head."""
    num_heads = positive_int(source, "num_attention_heads", 0, where)
    num_kv_heads = positive_int(source, "num_key_value_heads", num_heads, where)
    if num_heads % num_kv_heads:
        raise UserError(
            f"{where}: num_attention_heads {num_heads} is not a multiple of num_key_value_heads {num_kv_heads}; "
            "every key/value head must serve the same number of heads."
        )
    if source.get("head_dim") is None and hidden_size % num_heads:
        raise UserError(
            f"{where}: hidden_size {hidden_size} is not a multiple of num_attention_heads {num_heads}, and head_dim is not given."
        )
    return num_heads, num_kv_heads, positive_int(source, "head_dim", hidden_size // num_heads, where)


def _windows(source: Mapping[str, Any], family: Family, switched_on: bool, num_layers: int, where: str) -> tuple[int | None, ...]:
    """How far back each layer sees; layer_types decides where it is given and the family has windows in some layers."""
    window = source.get("sliding_window", family.window_size) if family.window != "none" and switched_on else None
    if window is not None:
        window = positive_int({"sliding_window": window}, "sliding_window", 0, where)
    first = 0
    if family.window == "some layers":
        first = source.get("max_window_layers", 28)
        if isinstance(first, bool) or not isinstance(first, int) or first < 0:
            raise wrong_value(where, "max_window_layers", first, "a whole number of layers")
    windows = tuple(window if layer >= first else None for layer in range(num_layers))
    types = source.get("layer_types")
    if types is None:
        return windows
    kinds = ("full_attention", "sliding_attention")
    if not isinstance(types, list) or len(types) != num_layers or any(kind not in kinds for kind in types):
        raise wrong_value(where, "layer_types", types, f'a list of {num_layers} times "full_attention" or "sliding_attention"')
    sliding = [kind == "sliding_attention" for kind in types]
    if any(sliding) and window is None:
        raise UserError(f'{where}: layer_types has "sliding_attention", but no sliding_window is in use.')
    if family.window != "some layers" and sliding != [size is not None for size in windows]:
        raise UserError(f"{where}: layer_types and sliding_window contradict each other; remove layer_types.")
    return tuple(window if here else None for here in sliding)


def _dtype(source: Mapping[str, Any], where: str) -> str:
    names = {str(source[key]) for key in ("torch_dtype", "dtype") if source.get(key) is not None}
    if len(names) > 1:
        raise UserError(f"{where}: torch_dtype and dtype differ ({' and '.join(sorted(names))}).")
    name = names.pop().removeprefix("torch.") if names else "float32"
    if name not in DTYPES:
        raise wrong_value(where, "dtype", name, f"one of {', '.join(DTYPES)}")
    return name
