"""config.json: what is read, and what is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest

from paddlealign.errors import UserError
from paddlealign.models.config import parse_config, read_config
from paddlealign.models.families import COMMON, FAMILIES
from paddlealign.models.rope import Rope, frequencies, text_lengths

LLAMA = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
QWEN2 = {**LLAMA, "model_type": "qwen2", "num_key_value_heads": 2}
QWEN3 = {**QWEN2, "model_type": "qwen3", "head_dim": 16}
MISTRAL = {**LLAMA, "model_type": "mistral", "num_key_value_heads": 2, "sliding_window": None}
PHI3 = {**LLAMA, "model_type": "phi3"}
NEOX = {**LLAMA, "model_type": "gpt_neox", "num_attention_heads": 2}
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
    assert (config.rope, config.windows, config.dtype) == (Rope(10000.0, 8), (None, None), "float32")
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
    assert config.tie_embeddings and config.rope.theta == 1e6 and config.windows == (None, None)
    assert config.source == qwen


def test_real_world_files_of_the_other_families_are_read() -> None:
    files = {
        "Mistral-7B-v0.1": {**MISTRAL, "sliding_window": 4096, "max_position_embeddings": 32768, "rms_norm_eps": 1e-05},
        "Mistral-7B-Instruct-v0.3": {**MISTRAL, "rope_theta": 1000000.0, "max_position_embeddings": 32768, "attention_dropout": 0.0},
        "Mistral-Nemo": {**MISTRAL, "head_dim": 16, "max_position_embeddings": 1024000, "use_cache": True},
        "Qwen3-8B": {
            **QWEN3, "attention_bias": False, "max_position_embeddings": 40960, "max_window_layers": 36, "rope_scaling": None,
            "rope_theta": 1000000, "sliding_window": None, "use_sliding_window": False,
        },
        "pythia-2.8b": {
            **NEOX, "hidden_act": "gelu", "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "rotary_emb_base": 10000,
            "rotary_pct": 0.25, "torch_dtype": "float16", "transformers_version": "4.24.0", "use_parallel_residual": True,
            "tie_word_embeddings": False,
        },
        "Phi-3-mini-4k-instruct": {
            **PHI3, "attention_bias": False, "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "embd_pdrop": 0.0,
            "original_max_position_embeddings": 4096, "resid_pdrop": 0.0, "rope_scaling": None, "sliding_window": 2047,
        },
        "gpt-neox-20b": {
            "architectures": ["GPTNeoXForCausalLM"], "attention_probs_dropout_prob": 0, "bos_token_id": 0, "eos_token_id": 0,
            "hidden_dropout_prob": 0, "initializer_range": 0.02, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
            "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.19.0.dev0", "use_cache": True,
            **NEOX, "hidden_act": "gelu_fast", "rotary_emb_base": 10000, "rotary_pct": 0.5},
    }  # fmt: skip
    read = {name: parse_config(file, name) for name, file in files.items()}
    assert read["Mistral-7B-v0.1"].windows == (4096, 4096) and read["Mistral-7B-Instruct-v0.3"].windows == (None, None)
    assert read["Mistral-Nemo"].head_dim == 16 and not read["Mistral-Nemo"].qkv_bias
    qwen3 = read["Qwen3-8B"]
    assert qwen3.qk_norm and qwen3.head_dim == 16 and qwen3.rope == Rope(1e6, 16) and not (qwen3.qkv_bias or qwen3.output_bias)
    pythia = read["pythia-2.8b"]
    assert (pythia.norm, pythia.norm_eps, pythia.activation, pythia.rope) == ("layer", 1e-5, "gelu", Rope(10000.0, 4))
    assert pythia.parallel_residual and pythia.qkv_bias and pythia.output_bias and pythia.mlp_bias
    phi3 = read["Phi-3-mini-4k-instruct"]
    assert (phi3.windows, phi3.norm_eps, phi3.num_kv_heads, phi3.rope) == ((2047, 2047), 1e-5, 4, Rope(10000.0, 8))
    assert parse_config(PHI3, "").windows == (None, None)
    assert parse_config({**PHI3, "partial_rotary_factor": 0.5}, "").rope.dim == 4
    assert (read["gpt-neox-20b"].activation, read["gpt-neox-20b"].rope.dim) == ("gelu_tanh", 8)


def test_windows() -> None:
    assert parse_config({key: value for key, value in MISTRAL.items() if key != "sliding_window"}, "").windows == (4096, 4096)
    switched_on = {**QWEN2, "use_sliding_window": True, "sliding_window": 7}
    assert parse_config({**switched_on, "max_window_layers": 1}, "").windows == (None, 7)
    assert parse_config(switched_on, "").windows == (None, None)  # max_window_layers is 28 where it is not said
    types = ["sliding_attention", "full_attention"]
    assert parse_config({**switched_on, "layer_types": types}, "").windows == (7, None)
    assert parse_config({**LLAMA, "layer_types": ["full_attention"] * 2}, "").windows == (None, None)


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
        ({"model_type": "mixtral"}, ["model_type", "'mixtral'", "gpt_neox, llama, mistral, phi3, qwen2, qwen3"]),
        ({"model_type": None}, ["model_type", "None"]),
        ({"num_hidden_layers": 10**30}, ["num_hidden_layers", "at most 10000"]),
        ({"architectures": "LlamaForCausalLM"}, ["architectures", "a list of class names"]),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": 1}}, ["beta_fast above beta_slow"]),
        ({"rope_scaling": {"type": "yarn", "factor": 0.5}}, ["factor of 1 or more"]),
        ({"hidden_act": "gelu"}, ["hidden_act", "gelu", "silu"]),
        ({"quantization_config": {"bits": 4}}, ["quantization_config"]),
        ({"attention_dropout": 0.1}, ["attention_dropout", "0.1"]),
        ({"residual_multiplier": 2.0}, ["residual_multiplier", "not understood", "remove it"]),
        ({"architectures": ["LlamaForSequenceClassification"]}, ["a classifier with 2 labels"]),
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
        ({"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}, ["auto_map", "never"]),
        ({"sliding_window": 16}, ["sliding_window", "not understood"]),
        ({"layer_types": ["full_attention", "chunked_attention"]}, ["layer_types", "chunked_attention"]),
        ({"layer_types": ["full_attention"]}, ["layer_types", "2 times"]),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, ["partial_rotary_factor", "0.5"]),
        ({"rope_scaling": {"type": "longrope", "factor": 4.0}}, ["longrope", "default, linear, dynamic, llama3, yarn"]),
        ({"rope_scaling": {"type": "dynamic", "factor": 0.5}}, ["dynamic", "factor", "0.5"]),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "alpha": 1}}, ["alpha", "yarn"]),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "truncate": 1}}, ["truncate", "true or false"]),
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
    ("base", "change", "word"),
    [
        (QWEN2, {"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        (QWEN2, {"use_sliding_window": True, "sliding_window": 0}, "sliding_window"),
        (QWEN2, {"use_sliding_window": True, "max_window_layers": -1}, "max_window_layers"),
        (QWEN2, {"num_key_value_heads": None}, "num_key_value_heads"),
        (QWEN2, {"attention_bias": True}, "attention_bias"),
        (QWEN3, {"head_dim": None}, "head_dim"),
        (MISTRAL, {"sliding_window": 4, "layer_types": ["full_attention"] * 2}, "contradict"),
        (MISTRAL, {"attention_bias": True}, "attention_bias"),
        (PHI3, {"rope_scaling": {"type": "longrope"}}, "longrope.*Supported: default"),
        (PHI3, {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "linear.*Supported: default"),
        (NEOX, {"num_key_value_heads": 1}, "num_key_value_heads"),
        (NEOX, {"hidden_act": "silu"}, "hidden_act is .*only gelu or gelu_fast"),
        (NEOX, {"hidden_dropout": 0.1}, "hidden_dropout"),
        (NEOX, {"rotary_pct": 0.2}, "0.2 of the head_dim 16 is 3"),
        (NEOX, {"rotary_pct": 0.25, "rope_parameters": {"partial_rotary_factor": 0.5}}, "rotary_pct is 0.25 and .*keep one"),
        (NEOX, {"rotary_emb_base": 10000, "rope_theta": 20000.0}, "rope_theta is 20000.0 and rotary_emb_base is 10000.0; keep one"),
    ],
)
def test_refusals_of_the_other_families(base: dict, change: dict, word: str) -> None:
    with pytest.raises(UserError, match=word):
        parse_config({**base, **change}, "config.json")


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such directory.*hub"):
        read_config("someone/some-model")
    with pytest.raises(UserError, match=r"config\.json: not found"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama",\n "vocab_size" 3}')
    with pytest.raises(UserError, match="line 2, column 15"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="found a list, a JSON object is needed"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert read_config(str(tmp_path)) == parse_config(LLAMA, "")
    with pytest.raises(UserError, match="this is a file"):
        read_config(tmp_path / "config.json")


def test_rope_frequencies() -> None:
    plain = frequencies(parse_config(LLAMA, "").rope)
    np.testing.assert_allclose(plain, [1.0, 0.1, 0.01, 0.001], rtol=1e-7)
    assert plain.dtype == np.float32
    linear = parse_config({**LLAMA, "rope_scaling": {"type": "linear", "factor": 4}}, "")
    np.testing.assert_allclose(frequencies(linear.rope), plain / 4, rtol=1e-7)
    assert linear.max_positions == 4 * 2048
    llama3 = parse_config({**LLAMA, "rope_scaling": LLAMA3_ROPE}, "")
    assert llama3.rope == Rope(10000.0, 8, "llama3", 8.0, 8192, 1.0, 4.0) and llama3.max_positions == 2048
    # Wavelengths 6.3, 62.8 and 628 lie under 8192 / 4 and are kept; 6283 lies between 2048 and 8192.
    turns = 8192 * 0.001 / (2 * np.pi)
    kept = (turns - 1) / 3
    np.testing.assert_allclose(frequencies(llama3.rope), [1.0, 0.1, 0.01, 0.001 * (kept + (1 - kept) / 8)], rtol=1e-6)
    # Qwen2.5's advice for long texts.
    yarn = parse_config(
        {**QWEN2, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, "rope_theta": 1e6}, ""
    )
    assert (yarn.max_positions, yarn.rope.attention_factor) == (131072, pytest.approx(0.1 * np.log(4) + 1))


def test_dynamic_frequencies_are_those_of_each_text() -> None:
    rope = parse_config({**LLAMA, "max_position_embeddings": 4, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "").rope
    positions = np.array([[0, 1, 2, 0, 1, 2, 3, 4, 5, 0], [7, 0, 1, 2, 3, 4, 5, 6, 7, 8]])
    lengths = text_lengths(positions)
    assert lengths[:, :, 0].tolist() == [[3, 3, 3, 6, 6, 6, 6, 6, 6, 1], [8, 9, 9, 9, 9, 9, 9, 9, 9, 9]]
    found = frequencies(rope, lengths)
    assert found.shape == (2, 10, 4) and found.dtype == np.float32
    for row in range(2):
        for column in range(10):
            np.testing.assert_array_equal(found[row, column], frequencies(rope, int(lengths[row, column, 0])))
    np.testing.assert_array_equal(found[0, 0], frequencies(Rope(10000.0, 8)))  # nothing changes up to the trained length
    assert found[1, 1, 1] < found[0, 3, 1] < found[0, 0, 1]


JSON_VALUES = [None, True, False, 0, -1, 1, 3, 1.5, float("inf"), float("nan"), "x", "", [], ["a"], [[1]], [{}, {}], {}, {"a": 1}, 10**30]
ROPES = [
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0},
    LLAMA3_ROPE,
    {"rope_type": "yarn", "factor": 2.0, "attention_factor": 1.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "truncate": True},
]


@pytest.mark.parametrize("base", [LLAMA, MISTRAL, QWEN2, QWEN3, PHI3, NEOX], ids=lambda base: base["model_type"])
def test_any_value_under_any_key_is_read_or_refused(base: dict) -> None:
    family = FAMILIES[base["model_type"]]
    keys = {*COMMON, *family.required, *family.optional, *family.flags, *family.fixed, "auto_map"}
    changes = [{key: value} for key in sorted(keys) for value in JSON_VALUES]
    for rope in ROPES:
        for key in [*rope, "type", "rope_theta", "partial_rotary_factor"]:
            changes += [{spelling: {**rope, key: value}} for spelling in ("rope_scaling", "rope_parameters") for value in JSON_VALUES]
    refused = 0
    for change in changes:
        try:
            parse_config({**base, **change}, "config.json")
        except UserError:
            refused += 1
    assert 0 < refused < len(changes)


def test_what_json_itself_cannot_hold_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(UserError, match=r"config\.json: not valid JSON \(nested more than 100 deep\)"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 1' + "0" * 5000 + "}")
    with pytest.raises(UserError, match=r"config\.json: not valid JSON \(the number 10+\.\.\. has 5,001 digits"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="model_type is missing"):
        read_config(tmp_path)
