"""What config.json says about a decoder, read strictly: every key is understood, or refused by name.

The shape of a model is one small dataclass. A family (LLaMA, Qwen2, ...) is one row of ``FAMILIES``: the keys of
config.json that it knows and what they may say. Both spellings are read: transformers 4 (``rope_theta``,
``rope_scaling``, ``torch_dtype``) and transformers 5 (``rope_parameters``, ``dtype``).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from paddlealign.errors import UserError
from paddlealign.models import rope
from paddlealign.models.config_values import (
    model_directory,
    paddlenlp_layout,
    positive_int,
    positive_number,
    read_json_object,
    true_or_false,
    wrong_value,
)
from paddlealign.models.rope import RopeScaling, read_rope

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder.

    qkv_bias, output_bias: biases of the query/key/value and of the output projection of attention.
    mlp_bias: biases of the three projections of the MLP.
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
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    max_positions: int
    tie_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    dtype: str
    source: dict[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Family:
    """What one model_type's config.json may say.

    architectures: class names allowed in ``architectures``.
    required: keys that must be there. flags: keys that must be true or false, with transformers' default.
    fixed: keys that may only have one of the values given, since the decoder has nothing else.
    harmless: keys that do not change what the decoder computes.
    """

    architectures: tuple[str, ...]
    required: tuple[str, ...]
    flags: Mapping[str, bool]
    fixed: Mapping[str, tuple[Any, ...]]
    harmless: frozenset[str]


SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")

# Keys read below for every family, whatever it is.
COMMON = frozenset(
    {*SIZES, "model_type", "architectures", "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps"}
    | {"tie_word_embeddings", "rope_theta", "rope_scaling", "rope_parameters", "torch_dtype", "dtype"}
)

COMMON_FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_dropout": (0, 0.0, None),
    "is_decoder": (False, True),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
    "partial_rotary_factor": (1, 1.0, None),
    "rope_interleaved": (False, None),
    "pruned_heads": ({}, None),
    "auto_map": (None,),
}

COMMON_HARMLESS = frozenset(
    # where the file comes from, and with what it is used
    {"transformers_version", "transformers.js_config", "_name_or_path", "name_or_path", "tokenizer_class", "_commit_hash"}
    | {"_from_model_config", "_auto_class", "base_model_name_or_path", "is_llama_config", "unsloth_version", "unsloth_fixed"}
    | {"max_sequence_length", "model_max_length", "tokenizer_model_max_length", "tokenizer_padding_side", "prefix"}
    # how transformers computes, and what it gives back beside the logits
    | {"use_cache", "return_dict", "use_return_dict", "output_attentions", "output_hidden_states", "torchscript", "use_bfloat16"}
    | {"_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal", "_flash_attn_2_enabled"}
    | {"_experts_implementation", "gradient_checkpointing", "chunk_size_feed_forward", "tf_legacy_loss", "xla_device"}
    | {"keys_to_ignore_at_inference", "initializer_range", "tie_encoder_decoder", "cross_attention_hidden_size"}
    # other tasks than a language model's
    | {"finetuning_task", "task_specific_params", "problem_type", "num_labels", "id2label", "label2id", "classifier_dropout"}
    # special tokens: read by the tokenizer
    | {"bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id"}
    # how transformers generates: here the arguments say it
    | {"max_length", "max_new_tokens", "min_length", "min_new_tokens", "early_stopping", "max_time", "stop_strings", "do_sample"}
    | {"num_beams", "num_beam_groups", "num_return_sequences", "diversity_penalty", "penalty_alpha", "temperature", "top_k", "top_p"}
    | {"min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty", "encoder_repetition_penalty", "length_penalty"}
    | {"no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "force_words_ids", "constraints", "sequence_bias"}
    | {"renormalize_logits", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "guidance_scale", "low_memory"}
    | {"exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens", "token_healing", "watermarking_config"}
    | {"output_scores", "output_logits", "return_dict_in_generate", "cache_implementation", "cache_config", "generation_config"}
)

# Only PaddleNLP writes these.
PADDLENLP_KEYS = (
    "paddlenlp_version", "alibi", "fuse_attention_qkv", "fuse_attention_ffn", "tensor_parallel_degree", "tensor_parallel_output",
    "sequence_parallel", "use_recompute", "recompute_granularity", "use_flash_attention_for_generation",
    "use_last_token_for_generation", "immediate_clear_past_key_value", "use_long_sequence_strategies", "long_sequence_strategy_type",
    "rope_scaling_type", "rope_scaling_factor", "rope_fusion_level", "lm_shift_labels", "dpo_config",
)  # fmt: skip

FAMILIES: dict[str, Family] = {
    "llama": Family(
        architectures=("LlamaForCausalLM", "LLaMAForCausalLM"),
        required=SIZES,
        flags={"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False},
        fixed=COMMON_FIXED,
        # pretraining_tp only cuts a product into slices; its result is the same.
        harmless=COMMON_HARMLESS | {"pretraining_tp"},
    ),
    "qwen2": Family(
        architectures=("Qwen2ForCausalLM",),
        required=(*SIZES, "num_key_value_heads"),
        flags={"tie_word_embeddings": False},
        fixed={**COMMON_FIXED, "use_sliding_window": (False,), "use_mrope": (False,)},
        # These two mean something only with use_sliding_window, which is refused; layer_types is checked by itself.
        harmless=COMMON_HARMLESS | {"sliding_window", "max_window_layers", "layer_types"},
    ),
}


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
    family_name = source.get("model_type")
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

    hidden_size = positive_int(source, "hidden_size", 0, where)
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
    head_dim = positive_int(source, "head_dim", hidden_size // num_heads, where)
    if head_dim % 2:
        raise UserError(f"{where}: head_dim is {head_dim}; rotary embeddings turn pairs, so it must be even.")
    flags = {key: true_or_false(source, key, default, where) for key, default in family.flags.items()}
    max_positions = positive_int(source, "max_position_embeddings", 2048 if family_name == "llama" else 32768, where)
    rope_theta, rope_scaling = read_rope(source, max_positions, where)
    return DecoderConfig(
        family=family_name,
        vocab_size=positive_int(source, "vocab_size", 0, where),
        hidden_size=hidden_size,
        num_layers=positive_int(source, "num_hidden_layers", 0, where),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        intermediate_size=positive_int(source, "intermediate_size", 0, where),
        norm_eps=positive_number(source, "rms_norm_eps", 1e-6, where),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        max_positions=max_positions,
        tie_embeddings=flags["tie_word_embeddings"],
        qkv_bias=family_name == "qwen2" or flags["attention_bias"],
        output_bias=flags.get("attention_bias", False),
        mlp_bias=flags.get("mlp_bias", False),
        dtype=_dtype(source, where),
        source=dict(source),
    )


def rope_frequencies(config: DecoderConfig) -> np.ndarray:
    """Angle by which each pair of a head turns per position: float32 [head_dim / 2]."""
    return rope.frequencies(config.rope_theta, config.head_dim, config.rope_scaling)


def _refuse_unknown(source: Mapping[str, Any], family_name: str, where: str) -> None:
    """Raise UserError for the first key that is not understood, or whose value the decoder cannot honour."""
    family = FAMILIES[family_name]
    for key, value in source.items():
        if key in family.fixed:
            if value not in family.fixed[key]:
                allowed = " or ".join(json.dumps(choice) for choice in family.fixed[key])
                raise UserError(f"{where}: {key} is {json.dumps(value)}. For {family_name} only {allowed} is supported.")
        elif key not in COMMON and key not in family.flags and key not in family.harmless:
            raise UserError(
                f"{where}: the key {key} (value {json.dumps(value)}) is not understood for {family_name}, so it might change "
                "what the model computes. If you know that it does not, remove it from config.json."
            )
    for name in source.get("architectures") or ():
        if name not in family.architectures:
            raise UserError(f"{where}: architectures names {name}. Only a language model is supported here: {family.architectures[0]}.")
    for kind in source.get("layer_types") or ():
        if kind != "full_attention":
            raise UserError(f'{where}: layer_types has {kind!r}. Only "full_attention" is supported.')


def _dtype(source: Mapping[str, Any], where: str) -> str:
    names = {source[key] for key in ("torch_dtype", "dtype") if source.get(key) is not None}
    if len(names) > 1:
        raise UserError(f"{where}: torch_dtype and dtype differ ({' and '.join(sorted(map(str, names)))}).")
    name = str(names.pop()).removeprefix("torch.") if names else "float32"
    if name not in DTYPES:
        raise wrong_value(where, "dtype", name, f"one of {', '.join(DTYPES)}")
    return name
