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
    assert (config.bos_id, config.eos_ids, config.pad_id, config.dtype) == (1, (2,), None, "float16")
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
    assert config.tie_embeddings and config.eos_ids == (151645, 151643) and config.rope_theta == 1e6
    assert config.source == qwen


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
        ({"eos_token_id": "</s>"}, ["eos_token_id", "token id"]),
        ({"bos_token_id": [1, 2]}, ["bos_token_id", "one token id"]),
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
