"""A model as PaddleNLP 3.0.0b4 loads it: its names, its config.json, its tokenizer, and what its classes do not compute, refused by name.

PaddleNLP keeps linear weights as they are held here, [in, out]. What its classes compute was tried out: tests/parity/test_paddlenlp.py.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.models.config import DecoderConfig
from paddlealign.models.families import FAMILIES
from paddlealign.models.parameters import parameter_shapes
from paddlealign.models.tensor_files import TensorSpec, write_bytes, write_json
from paddlealign.models.tensor_memory import converted_rows, memory_of
from paddlealign.models.weight_files import write_weights

VERSION = "PaddleNLP 3.0.0b4"
ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
# The rope scaling that its LLaMA has, and what rope_scaling_type calls it; llama3 is a rope_scaling as in transformers 4.
SCALINGS = {"linear": "linear", "dynamic": "dynamic_ntk", "llama3": None}
_TOKEN_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


def paddlenlp_config(config: DecoderConfig, dtype: str) -> dict[str, Any]:
    """The config.json that PaddleNLP reads for a model. Raises UserError for what its classes leave out or compute otherwise."""
    lacking = _lacking(config)
    if lacking:
        raise UserError(f"format: {VERSION} has no {lacking}, so it would compute something else. Use format huggingface.")
    if config.family == "mistral" and any(window is not None for window in config.windows):
        raise UserError(
            f"format: {VERSION} has no sliding window for Mistral (sliding_window {max(size or 0 for size in config.windows)} in "
            "config.json). If no text is ever longer than that, set it to null; or use format huggingface."
        )
    written = {
        "architectures": [ARCHITECTURES[config.family]],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope.theta,
        # Not max_positions, which holds the rope scaling already: PaddleNLP stretches by itself.
        "max_position_embeddings": config.source.get("max_position_embeddings") or FAMILIES[config.family].positions,
        "tie_word_embeddings": config.tie_embeddings,
        "dtype": dtype,
        "paddlenlp_version": VERSION.split()[1],
        **{key: config.source[key] for key in _TOKEN_KEYS if config.source.get(key) is not None},
    }
    if config.rope.kind == "llama3":
        written["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": config.rope.factor,
            "low_freq_factor": config.rope.low_freq_factor,
            "high_freq_factor": config.rope.high_freq_factor,
            "original_max_position_embeddings": config.rope.original_positions,
        }
    elif config.rope.kind != "default":
        written |= {"rope_scaling_type": SCALINGS[config.rope.kind], "rope_scaling_factor": config.rope.factor}
    return written


def _lacking(config: DecoderConfig) -> str | None:
    """What of the model PaddleNLP's class has not, in words; None where it has all."""
    if config.head == "score":
        return "reward model of this form"
    if config.family not in ARCHITECTURES:
        return f"{config.family} model"
    if config.qkv_bias != (config.family == "qwen2") or config.output_bias or config.mlp_bias:
        return f"attention_bias and mlp_bias for {config.family}"
    if config.head_dim * config.num_heads != config.hidden_size:
        return f"head_dim of its own ({config.head_dim}, where hidden_size {config.hidden_size} has {config.num_heads} heads)"
    if config.rope.kind != "default" and (config.family != "llama" or config.rope.kind not in SCALINGS):
        return f"rope scaling {config.rope.kind} for {config.family}"
    if config.family == "mistral" and config.tie_embeddings:
        return "tie_word_embeddings for mistral"
    if config.family == "qwen2" and any(window is not None for window in config.windows):
        return "sliding window for qwen2"
    return None


def paddlenlp_tokenizer(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files, by name, by which PaddleNLP's ``AutoTokenizer.from_pretrained`` gives the ids that this tokenizer gives.

    Its classes LlamaTokenizer and Qwen2Tokenizer want files of their own and cut texts otherwise (spaces, the words of Qwen); the class
    PretrainedTokenizerFast takes any tokenizer.json as it lies.
    """
    bos = tokenizer.named_tokens.get("bos_token")
    content = tokenizer.model.description()
    if tokenizer.add_bos and bos is not None:
        text = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        named = {bos: {"id": bos, "ids": [tokenizer.bos_id], "tokens": [bos]}}
        second = {"Sequence": {"id": "B", "type_id": 1}}
        content["post_processor"] = {"type": "TemplateProcessing", "single": text, "pair": [*text, second], "special_tokens": named}
    config: dict[str, Any] = {"tokenizer_class": "PretrainedTokenizerFast", **tokenizer.named_tokens, "clean_up_tokenization_spaces": False}
    # Its decoders need the mask to generate, know no token types, and go on at a prompt's right end.
    config |= {"model_input_names": ["input_ids", "attention_mask"], "padding_side": "left"}
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    files = {"tokenizer.json": content, "tokenizer_config.json": config}
    return {name: json.dumps(value, indent=2, ensure_ascii=False).encode() for name, value in files.items()}


def save_paddlenlp_model(
    state: Callable[[str], paddle.Tensor],
    config: DecoderConfig,
    directory: Path,
    side_files: Mapping[str, bytes],
    dtype: str,
    max_shard_bytes: int,
) -> None:
    """Write a model directory that PaddleNLP's ``AutoModelForCausalLM.from_pretrained(directory)`` loads. See ``weights.save_model``."""
    described = paddlenlp_config(config, dtype)
    shapes = parameter_shapes(config)
    ours = {name.replace("model.", f"{config.family}.", 1): name for name in shapes}

    def stored(name: str) -> Iterator[np.ndarray]:
        tensor = state(ours[name])  # alive as long as its memory is read
        yield from converted_rows(memory_of(tensor), dtype, name, directory)

    specs = [TensorSpec(name, dtype, shapes[ours[name]]) for name in ours]
    write_weights(directory, specs, stored, {"format": "np"}, max_shard_bytes)
    for name, content in side_files.items():
        write_bytes(directory / name, content)
    write_json(directory / "config.json", described)
