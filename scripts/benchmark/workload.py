"""The common workload: random pairs of drawn lengths, and the files that each system reads them from.

A token is one word: ``w123`` is token 123 for a tokenizer that has all 32,000 words, so that whoever reads the rows as text meets the very
ids that another system is given as numbers. The rows stand in the order in which our own feed takes them; the others do not shuffle.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paddlealign.data.order import epoch_plan
from paddlealign.models.tensor_files import TensorSpec, write_json, write_streamed

HIDDEN, LAYERS, HEADS, INNER, VOCABULARY = 512, 8, 8, 1376, 32000
PAIRS_PER_STEP = 4
SEED = 42
PAD, END, FIRST_WORD = 0, 2, 3
SPREAD = 0.6  # sigma of the lognormal lengths


@dataclass(frozen=True)
class Shape:
    """How long the texts of a set are. prompt, response: mean tokens. longest: of prompt, chosen and rejected together."""

    prompt: int
    response: int
    longest: int


SHAPES = {"common": Shape(300, 120, 1020), "short": Shape(40, 120, 1020), "long": Shape(900, 120, 2044)}


@dataclass(frozen=True)
class Pair:
    """Token ids. Responses end with END."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


@dataclass(frozen=True)
class Work:
    """What an optimizer step is asked for. tokens: each response with its prompt. scored: of the responses. flops: see ``model_flops``."""

    examples: int
    tokens: int
    scored: int
    flops: float


def draw_pairs(shape: Shape, count: int) -> list[Pair]:
    """Random pairs, always the same for a shape; of a larger count the first ones are those of a smaller."""
    random = np.random.default_rng([SEED, shape.prompt, shape.response])
    pairs = []
    while len(pairs) < count:
        means = np.array([shape.prompt, shape.response, shape.response])
        sizes = np.maximum(np.rint(random.lognormal(np.log(means) - SPREAD**2 / 2, SPREAD)), 2).astype(int)
        if sizes.sum() <= shape.longest:
            prompt, chosen, rejected = (random.integers(FIRST_WORD, VOCABULARY, size).tolist() for size in sizes)
            pairs.append(Pair(prompt, [*chosen[:-1], END], [*rejected[:-1], END]))
    return pairs


def in_our_order(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs as the first epoch of ``dpo_main.py`` and ``sft_main.py`` takes them under SEED."""
    plan = epoch_plan(np.ones(len(pairs)), seed=SEED, epoch=0, max_length=1, micro_batch_size=PAIRS_PER_STEP)
    return [pairs[index] for index in plan.order]


def steps_of(pairs: Sequence[Pair], method: str, reference: bool) -> list[Work]:
    """What each step asks for, in our order. method: "dpo", or "sft" of the chosen responses. reference: whether a live one computes."""
    ordered = in_our_order(pairs)
    return [_work(ordered[start : start + PAIRS_PER_STEP], method, reference) for start in range(0, len(ordered), PAIRS_PER_STEP)]


def _work(pairs: Sequence[Pair], method: str, reference: bool) -> Work:
    rows = [(len(pair.prompt), _response_lengths(pair, method)) for pair in pairs]
    tokens = sum(prompt + response for prompt, responses in rows for response in responses)
    scored = sum(sum(responses) for _, responses in rows)
    return Work(len(pairs), tokens, scored, sum(model_flops(prompt, responses, reference) for prompt, responses in rows))


def _response_lengths(pair: Pair, method: str) -> list[int]:
    return [len(pair.chosen), len(pair.rejected)] if method == "dpo" else [len(pair.chosen)]


def model_flops(prompt: int, responses: Sequence[int], reference: bool) -> float:
    """The multiplications and additions that an example needs, of whoever trains on it.

    The prompt once, its responses behind it, each key for the queries that may see it, the head where a token is scored; backward twice
    the forward; a forward of the reference where it is live. Nothing that is computed again, no padding, no norms or softmaxes.
    """
    return sum(forward_flops(prompt, responses)) * (4 if reference else 3)


def forward_flops(prompt: int, responses: Sequence[int]) -> tuple[float, float, float]:
    """Those of an example's forward pass in the linear layers, in attention and in the head."""
    tokens = prompt + sum(responses)
    seen = prompt * (prompt + 1) / 2 + sum(size * prompt + size * (size + 1) / 2 for size in responses)
    weights = LAYERS * (4 * HIDDEN**2 + 3 * HIDDEN * INNER)
    return 2 * weights * tokens, 4 * HIDDEN * LAYERS * seen, 2 * HIDDEN * VOCABULARY * sum(responses)


def write_workload(folder: Path, pairs: Sequence[Pair]) -> None:
    """Write the rows: texts as ours reads them, texts in our order for TRL, and numbers in our order for PaddleNLP."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = in_our_order(pairs)
    _write_lines(folder / "dpo.jsonl", [_texts(pair, "prompt", "chosen", "rejected") for pair in pairs])
    _write_lines(folder / "sft.jsonl", [_texts(pair, "src", "tgt") for pair in pairs])
    _write_lines(folder / "dpo_ordered.jsonl", [_texts(pair, "prompt", "chosen", "rejected") for pair in ordered])
    _write_lines(folder / "sft_ordered.jsonl", [_texts(pair, "prompt", "completion") for pair in ordered])
    _write_lines(folder / "ids_ordered.jsonl", [asdict(pair) for pair in ordered])


def _texts(pair: Pair, *names: str) -> dict[str, str]:
    """The pair's texts under these names. Every reader adds the end token itself."""
    return dict(zip(names, (_words(pair.prompt), " " + _words(pair.chosen[:-1]), " " + _words(pair.rejected[:-1])), strict=False))


def _words(ids: Sequence[int]) -> str:
    return " ".join(f"w{number}" for number in ids)


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_model(folder: Path) -> None:
    """Write a LLaMA of random weights in HuggingFace's layout, with the tokenizer of words."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "lm_head.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        parts = {f"self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"}
        parts |= {"mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
        parts |= {"input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,)}
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in parts.items()}
    random = np.random.default_rng(SEED)

    def tensor(name: str) -> list[np.ndarray]:
        # 1 / sqrt(hidden), so that the log-probs differ from pair to pair and tell whether the systems read the same.
        made = random.standard_normal(shapes[name], "float32") / np.float32(math.sqrt(HIDDEN))
        return [np.ones(shapes[name], "float32") if "norm" in name else made]

    write_streamed(
        folder / "model.safetensors", [TensorSpec(name, "float32", shape) for name, shape in shapes.items()], tensor, {"format": "pt"}
    )
    write_json(folder / "config.json", _config())
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """Write the tokenizer of words."""
    special = {PAD: "<pad>", 1: "<s>", END: "</s>"}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    words = {special.get(number, f"w{number}"): number for number in range(VOCABULARY)}
    tokenizer: dict[str, Any] = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    tokenizer |= {"version": "1.0", "added_tokens": [{"id": number, "content": text, **flags} for number, text in special.items()]}
    tokenizer |= {"pre_tokenizer": {"type": "WhitespaceSplit"}, "model": {"type": "WordLevel", "vocab": words, "unk_token": "<s>"}}
    write_json(folder / "tokenizer.json", tokenizer)
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<s>"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 4096, **names})


def _config() -> dict[str, Any]:
    """config.json of the model."""
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": INNER, "vocab_size": VOCABULARY}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
    tokens = {"bos_token_id": 1, "eos_token_id": END, "pad_token_id": PAD, "max_position_embeddings": 4096, "tie_word_embeddings": False}
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32", **sizes, **heads, **tokens}
