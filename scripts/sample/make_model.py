"""Write a LLaMA with random weights: ``python -m scripts.sample.make_model --output DIR [--hidden 256] [--layers 4]``.

With ``--weights FILE`` the weights are taken from a trained checkpoint instead, rounded. Writes config.json,
generation_config.json and model.safetensors (bfloat16) in HuggingFace's layout, with NumPy alone. The vocabulary's size is
read from the tokenizer.model in the folder (see make_tokenizer).
"""

import argparse
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import sentencepiece

from paddlealign.models.tensor_files import read_tensors, write_tensors

INIT_STD = 0.02


def llama_config(vocab: int, hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int) -> dict:
    """config.json of a LLaMA with tied embeddings and a window of 512 tokens, as transformers 4 writes it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": INIT_STD,
        "intermediate_size": intermediate,
        "max_position_embeddings": 512,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": vocab,
    }


def llama_shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """The name and shape of every weight in HuggingFace's layout; linear weights are [out, in]."""
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        block = {
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "post_attention_layernorm": (hidden,),
            "mlp.gate_proj": (intermediate, hidden),
            "mlp.up_proj": (intermediate, hidden),
            "mlp.down_proj": (hidden, intermediate),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    return shapes | {"model.norm.weight": (hidden,)}


def random_weights(config: dict, seed: int) -> dict[str, np.ndarray]:
    """Norms of one, everything else normal with a standard deviation of 0.02; bfloat16."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in llama_shapes(config).items():
        drawn = np.ones(shape) if len(shape) == 1 else rng.normal(0.0, INIT_STD, shape)
        weights[name] = drawn.astype(ml_dtypes.bfloat16)
    return weights


def rounded_weights(config: dict, source: Path) -> dict[str, np.ndarray]:
    """The weights of a trained checkpoint of the same shapes, rounded to bfloat16."""
    trained = read_tensors(str(source))
    shapes = {name: weight.shape for name, weight in trained.items()}
    if shapes != llama_shapes(config):
        raise SystemExit(f"{source} has not the shapes of this model; give the same --hidden, --layers and so on as in training.")
    return {name: weight.astype(ml_dtypes.bfloat16) for name, weight in trained.items()}


def write_json(path: Path, content: dict) -> None:
    """Write indented JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Write the checkpoint beside the tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder with a tokenizer.model; the checkpoint goes there too")
    parser.add_argument("--hidden", type=int, default=256, help="hidden size")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4, help="query heads")
    parser.add_argument("--kv_heads", type=int, default=2, help="key and value heads")
    parser.add_argument("--intermediate", type=int, default=640, help="width of the feed-forward layer")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights")
    parser.add_argument("--weights", type=Path, help="model.safetensors to round to bfloat16, in place of random weights")
    given = parser.parse_args()
    vocab = sentencepiece.SentencePieceProcessor(model_file=str(given.output / "tokenizer.model")).vocab_size()
    config = llama_config(vocab, given.hidden, given.layers, given.heads, given.kv_heads, given.intermediate)
    weights = rounded_weights(config, given.weights) if given.weights else random_weights(config, given.seed)
    write_json(given.output / "config.json", config)
    generation = {"bos_token_id": 1, "do_sample": False, "eos_token_id": 2, "max_new_tokens": 64}
    write_json(given.output / "generation_config.json", generation)
    write_tensors(given.output / "model.safetensors", weights, {"format": "pt"})
    print(f"{given.output}: {sum(w.size for w in weights.values()) / 1e6:.2f} million parameters")


if __name__ == "__main__":
    main()
