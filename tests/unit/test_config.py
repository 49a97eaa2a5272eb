"""config.json: what is read, and what is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest

from paddlealign.errors import UserError
from paddlealign.models.config import parse_config, read_config, rope_frequencies
from paddlealign.models.rope import RopeScaling

LLAMA = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
QWEN2 = {**LLAMA, "model_type": "qwen2", "num_key_value_heads": 2}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def test_defaults_are_those_of_the_family() -> None:
    config = parse_config(LLAMA, "config.json")
    assert (config.num_kv_heads, config.head_dim, config.max_positions, config.norm_eps) == (4, 8, 2048, 1e-6)
    assert (config.rope_theta, config.rope_scaling, config.dtype) == (10000.0, None, "float32")
    assert not (config.tie_embeddings or config.qkv_bias or config.output_bias or config.mlp_bias)
    config = parse_config(QWEN2, "config.json")
    assert config.qkv_bias and not config.output_bias and config.max_positions == 32768
    biased = parse_config({**LLAMA, "attention_bias": True, "mlp_bias": True}, "config.json")
    assert biased.qkv_bias and biased.output_bias and biased.mlp_bias


def test_real_world_llama2_and_qwen25_files_are_read() -> None:
    llama2 = {
        **LLAMA,
        "_name_or_path": "x",
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 4096,
        "pad_token_id": -1,
        "pretraining_tp": 1,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.31.0.dev0",
        "use_cache": True,
    }
    config = parse_config(llama2, "config.json")
    assert (config.max_positions, config.dtype) == (4096, "float16")
    qwen = {
        **QWEN2,
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": [151645, 151643],
        "max_window_layers": 21,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_mrope": False,
        "use_sliding_window": False,
    }
    config = parse_config(qwen, "config.json")
    assert config.tie_embeddings and config.rope_theta == 1e6
    assert config.source == qwen


# What transformers' PretrainedConfig has put into config.json over the years, with its defaults.
PRETRAINED_DEFAULTS = {
    "return_dict": True, "output_hidden_states": False, "output_attentions": False, "torchscript": False, "use_bfloat16": False,
    "tf_legacy_loss": False, "pruned_heads": {}, "chunk_size_feed_forward": 0, "is_encoder_decoder": False, "is_decoder": False,
    "cross_attention_hidden_size": None, "add_cross_attention": False, "tie_encoder_decoder": False, "max_length": 20, "min_length": 0,
    "do_sample": False, "early_stopping": False, "num_beams": 1, "num_beam_groups": 1, "diversity_penalty": 0.0, "temperature": 1.0,
    "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "num_return_sequences": 1, "output_scores": False,
    "return_dict_in_generate": False, "forced_bos_token_id": None, "forced_eos_token_id": None, "remove_invalid_values": False,
    "exponential_decay_length_penalty": None, "suppress_tokens": None, "begin_suppress_tokens": None, "finetuning_task": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "tokenizer_class": None, "prefix": None,
    "sep_token_id": None, "decoder_start_token_id": None, "task_specific_params": None, "problem_type": None,
    "gradient_checkpointing": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [
        PRETRAINED_DEFAULTS,
        # vicuna-7b-v1.5, Llama-3.2-1B-Instruct, SmolLM2, and sampling keys as some fine-tuned models carry them
        {"max_length": 4096, "max_position_embeddings": 4096, "pad_token_id": 0, "temperature": 0.9, "top_p": 0.6, "do_sample": True},
        {"rope_scaling": {**LLAMA3_ROPE, "factor": 32.0}, "head_dim": 8, "eos_token_id": [128001, 128008, 128009], "mlp_bias": False},
        {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}, "initializer_range": 0.04},
    ],
)
def test_keys_that_change_nothing_in_the_decoder_are_let_through(more: dict) -> None:
    for base in (LLAMA, QWEN2):
        shared = {key: value for key, value in more.items() if base is LLAMA or key != "mlp_bias"}
        config = parse_config({**base, **shared}, "config.json")
        assert config.source.keys() == base.keys() | shared.keys()


@pytest.mark.parametrize("key", ["alibi", "fuse_attention_qkv", "use_recompute", "tensor_parallel_degree", "paddlenlp_version"])
def test_a_config_that_paddlenlp_wrote_is_told_in_one_message(key: str) -> None:
    source = {**LLAMA, "seq_length": 2048, "long_sequence_init_args": {}, key: False}
    with pytest.raises(UserError, match=rf"here: this is a model in PaddleNLP's layout \(it has the key {key}\).*HuggingFace checkpoint"):
        parse_config(source, "here")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mistral"}, ["model_type", "'mistral'", "llama, qwen2"]),
        ({"model_type": None}, ["model_type", "None"]),
        ({"hidden_act": "gelu"}, ["hidden_act", "gelu", "silu"]),
        ({"quantization_config": {"bits": 4}}, ["quantization_config"]),
        ({"attention_dropout": 0.1}, ["attention_dropout", "0.1"]),
        ({"residual_multiplier": 2.0}, ["residual_multiplier", "not understood", "remove it"]),
        ({"architectures": ["LlamaForSequenceClassification"]}, ["LlamaForSequenceClassification"]),
        ({"vocab_size": None}, ["vocab_size", "missing"]),
        ({"hidden_size": "32"}, ["hidden_size", "whole number"]),
        ({"hidden_size": True}, ["hidden_size", "whole number"]),
        ({"hidden_size": 30}, ["hidden_size 30", "num_attention_heads 4"]),
        ({"head_dim": 7}, ["head_dim", "even"]),
        ({"num_key_value_heads": 3}, ["num_key_value_heads 3"]),
        ({"rms_norm_eps": 0}, ["rms_norm_eps"]),
        ({"tie_word_embeddings": "true"}, ["tie_word_embeddings", "true or false"]),
        ({"rope_interleaved": True}, ["rope_interleaved"]),
        ({"pruned_heads": {"0": [1]}}, ["pruned_heads"]),
        ({"add_cross_attention": True}, ["add_cross_attention"]),
        ({"torch_dtype": "float8"}, ["dtype", "bfloat16"]),
        ({"torch_dtype": "float16", "dtype": "bfloat16"}, ["torch_dtype", "dtype", "differ"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor"]),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, ["yarn", "default, linear, llama3"]),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, ["dynamic"]),
        ({"rope_scaling": {"type": "linear"}}, ["factor", "missing"]),
        ({"rope_scaling": {"type": "linear", "rope_type": "llama3", "factor": 2}}, ["type and rope_type differ"]),
        ({"rope_scaling": {"type": "linear", "factor": 2, "mscale": 1}}, ["mscale"]),
        ({"rope_scaling": "linear"}, ["rope_scaling", "object"]),
        ({"rope_scaling": {**LLAMA3_ROPE, "high_freq_factor": 1.0}}, ["high_freq_factor"]),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, ["rope_theta", "keep one"]),
    ],
)
def test_what_is_not_understood_is_refused_by_name(change: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        parse_config({**LLAMA, **change}, "here/config.json")
    assert all(word in str(refused.value) for word in ["here/config.json", *words])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"num_key_value_heads": None}, "num_key_value_heads"),
        ({"attention_bias": True}, "attention_bias"),
    ],
)
def test_qwen2_refusals(change: dict, word: str) -> None:
    with pytest.raises(UserError, match=word):
        parse_config({**QWEN2, **change}, "config.json")


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such directory.*hub"):
        read_config("someone/some-model")
    with pytest.raises(UserError, match=r"config\.json: not found"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama",\n "vocab_size" 3}')
    with pytest.raises(UserError, match="line 2, column 15"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="a JSON object was expected, not list"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert read_config(str(tmp_path)) == parse_config(LLAMA, "")
    with pytest.raises(UserError, match="this is a file"):
        read_config(tmp_path / "config.json")


def test_rope_frequencies() -> None:
    plain = rope_frequencies(parse_config(LLAMA, ""))
    np.testing.assert_allclose(plain, [1.0, 0.1, 0.01, 0.001], rtol=1e-7)
    assert plain.dtype == np.float32
    linear = parse_config({**LLAMA, "rope_scaling": {"type": "linear", "factor": 4}}, "")
    np.testing.assert_allclose(rope_frequencies(linear), plain / 4, rtol=1e-7)
    llama3 = parse_config({**LLAMA, "rope_scaling": LLAMA3_ROPE}, "")
    assert llama3.rope_scaling == RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)
    # Wavelengths 6.3, 62.8 and 628 lie under 8192 / 4 and are kept; 6283 lies between 2048 and 8192.
    turns = 8192 * 0.001 / (2 * np.pi)
    kept = (turns - 1) / 3
    np.testing.assert_allclose(rope_frequencies(llama3), [1.0, 0.1, 0.01, 0.001 * (kept + (1 - kept) / 8)], rtol=1e-6)
