"""The families of decoders: for each model_type of config.json, the keys that it knows and what is constant about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paddlealign.models.layout import HUGGINGFACE, Layout
from paddlealign.models.rope import TYPES


@dataclass(frozen=True)
class Family:
    """What one model_type's config.json may say, and what it need not say because it is always so.

    architectures: class names of language models, the first being the usual one. score_architecture: that of reward models, whose head is
    one number a text (``models.score_head``).
    required: keys that must be there. optional: further keys that are read.
    flags: keys that must be true or false, with transformers' default.
    fixed: keys that may only have one of the values given, since the decoder has nothing else.
    harmless: keys that do not change what the decoder computes.
    activations: what ``hidden_act`` may say, and the MLP's activation here (``DecoderConfig.activation``).
    norm, norm_key: "rms" or "layer", and what the epsilon is called. qkv_bias, mlp_bias: there whatever the flags say.
    qk_norm: queries and keys are normed. positions: the default of max_position_embeddings.
    rotary_share: the default share of a head that is turned; None: always all of it. rope_types: the kinds of scaling that it has.
    window: "none", "every layer" (the key sliding_window alone decides) or "some layers" (use_sliding_window and layer_types do).
    window_size: what a file that does not say sliding_window means.
    layout: how the files name and group the parameters.
    """

    architectures: tuple[str, ...]
    score_architecture: str
    required: tuple[str, ...]
    optional: frozenset[str]
    flags: Mapping[str, bool]
    fixed: Mapping[str, tuple[Any, ...]]
    harmless: frozenset[str]
    positions: int
    activations: Mapping[str, str] = field(default_factory=lambda: {"silu": "swiglu"})
    norm: str = "rms"
    norm_key: str = "rms_norm_eps"
    norm_eps: float = 1e-6
    qkv_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    rotary_share: float | None = None
    rope_types: tuple[str, ...] = tuple(TYPES)
    window: str = "none"
    window_size: int | None = 4096
    layout: Layout = HUGGINGFACE


SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")

# Keys read for every family, whatever it is.
COMMON = frozenset(
    {*SIZES, "model_type", "architectures", "max_position_embeddings", "hidden_act", "tie_word_embeddings", "layer_types"}
    | {"rope_scaling", "rope_parameters", "torch_dtype", "dtype", "num_labels", "id2label"}
)

COMMON_FIXED: dict[str, tuple[Any, ...]] = {
    "attention_dropout": (0, 0.0, None),
    "is_decoder": (False, True),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
    "rope_interleaved": (False, None),
    "pruned_heads": ({}, None),
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
    | {"finetuning_task", "task_specific_params", "problem_type", "label2id", "classifier_dropout"}
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

# What LLaMA and those after it have in common. partial_rotary_factor may be there, and must be 1 (rope.read_rope).
GROUPED = frozenset({"num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "partial_rotary_factor"})
SLIDING = frozenset({"sliding_window", "max_window_layers"})

FAMILIES: dict[str, Family] = {
    "llama": Family(
        architectures=("LlamaForCausalLM", "LLaMAForCausalLM"),
        score_architecture="LlamaForSequenceClassification",
        required=SIZES,
        optional=GROUPED,
        flags={"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False},
        fixed=COMMON_FIXED,
        # pretraining_tp only cuts a product into slices; its result is the same.
        harmless=COMMON_HARMLESS | {"pretraining_tp"},
        positions=2048,
    ),
    "mistral": Family(
        architectures=("MistralForCausalLM",),
        score_architecture="MistralForSequenceClassification",
        required=(*SIZES, "num_key_value_heads"),
        optional=GROUPED | {"sliding_window"},
        flags={"tie_word_embeddings": False},
        fixed=COMMON_FIXED,
        harmless=COMMON_HARMLESS,
        positions=131072,
        window="every layer",
    ),
    "qwen2": Family(
        architectures=("Qwen2ForCausalLM",),
        score_architecture="Qwen2ForSequenceClassification",
        required=(*SIZES, "num_key_value_heads"),
        optional=GROUPED | SLIDING,
        flags={"tie_word_embeddings": False, "use_sliding_window": False},
        fixed={**COMMON_FIXED, "use_mrope": (False,)},
        harmless=COMMON_HARMLESS,
        positions=32768,
        qkv_bias=True,
        window="some layers",
    ),
    "qwen3": Family(
        architectures=("Qwen3ForCausalLM",),
        score_architecture="Qwen3ForSequenceClassification",
        required=(*SIZES, "num_key_value_heads", "head_dim"),
        optional=GROUPED | SLIDING,
        flags={"tie_word_embeddings": False, "attention_bias": False, "use_sliding_window": False},
        fixed=COMMON_FIXED,
        harmless=COMMON_HARMLESS,
        positions=32768,
        qk_norm=True,
        window="some layers",
    ),
    # Phi-3 and Phi-4 with the plain rope; the longer ones say longrope, which is refused. Their files all bring code by auto_map, which has
    # since been taken into transformers as it is; it is never run.
    "phi3": Family(
        architectures=("Phi3ForCausalLM",),
        score_architecture="Phi3ForSequenceClassification",
        required=SIZES,
        optional=GROUPED | {"sliding_window"},
        flags={"tie_word_embeddings": False},
        fixed={**COMMON_FIXED, "attention_bias": (False,), "embd_pdrop": (0, 0.0), "resid_pdrop": (0, 0.0)},
        harmless=COMMON_HARMLESS | {"auto_map", "original_max_position_embeddings"},
        positions=4096,
        norm_eps=1e-5,
        rotary_share=1.0,
        rope_types=("default",),
        window="every layer",
        window_size=None,
        layout=Layout(
            renamed={},
            fused={
                "model.layers.*.self_attn.qkv_proj": (
                    "model.layers.*.self_attn.q_proj",
                    "model.layers.*.self_attn.k_proj",
                    "model.layers.*.self_attn.v_proj",
                ),
                "model.layers.*.mlp.gate_up_proj": ("model.layers.*.mlp.gate_proj", "model.layers.*.mlp.up_proj"),
            },
            by_head=False,
        ),
    ),
    # Black et al. 2022; Pythia (Biderman et al. 2023) is of this family.
    "gpt_neox": Family(
        architectures=("GPTNeoXForCausalLM",),
        score_architecture="GPTNeoXForSequenceClassification",
        required=SIZES,
        optional=frozenset({"layer_norm_eps", "rope_theta", "rotary_emb_base", "partial_rotary_factor", "rotary_pct"}),
        flags={"tie_word_embeddings": False, "attention_bias": True, "use_parallel_residual": True},
        fixed={**COMMON_FIXED, "hidden_dropout": (0, 0.0, None)},
        # Older names of two dropouts, which transformers does not read any more.
        harmless=COMMON_HARMLESS | {"attention_probs_dropout_prob", "hidden_dropout_prob"},
        positions=2048,
        activations={"gelu": "gelu", "gelu_fast": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"},
        norm="layer",
        norm_key="layer_norm_eps",
        norm_eps=1e-5,
        mlp_bias=True,
        rotary_share=0.25,
        layout=Layout(
            renamed={
                "model.embed_tokens": "gpt_neox.embed_in",
                "model.norm": "gpt_neox.final_layer_norm",
                "model.layers.*.input_layernorm": "gpt_neox.layers.*.input_layernorm",
                "model.layers.*.post_attention_layernorm": "gpt_neox.layers.*.post_attention_layernorm",
                "model.layers.*.self_attn.o_proj": "gpt_neox.layers.*.attention.dense",
                "model.layers.*.mlp.up_proj": "gpt_neox.layers.*.mlp.dense_h_to_4h",
                "model.layers.*.mlp.down_proj": "gpt_neox.layers.*.mlp.dense_4h_to_h",
                "lm_head": "embed_out",
            },
            fused={
                "gpt_neox.layers.*.attention.query_key_value": (
                    "model.layers.*.self_attn.q_proj",
                    "model.layers.*.self_attn.k_proj",
                    "model.layers.*.self_attn.v_proj",
                )
            },
            by_head=True,
        ),
    ),
}
