"""Make tests/parity/golden/: tiny random checkpoints and what HuggingFace transformers computes with them.

Needs torch and transformers 5, which this project does not depend on; run it by hand where they are installed:

    python scripts/golden/logits.py tests/parity/golden

For each checkpoint: config.json (as transformers 5 writes it), config.v4.json (as transformers 4 did), safetensors, and
golden.npz with input_ids, logits in fp32, the mean cross-entropy of the next token and the gradients of every parameter,
and greedy generations. sampling.npz holds what transformers' logits processors make of one table of logits.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 500000.0,
}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}


def plain(theta: float) -> dict:
    """Rotary embeddings without scaling."""
    return {"rope_type": "default", "rope_theta": theta}


# name: (config, dtype, largest shard)
CHECKPOINTS = {
    "llama1": (LlamaConfig(**SMALL, num_key_value_heads=4, rope_parameters=plain(10000.0)), torch.float32, "1GB"),
    "llama2_gqa": (LlamaConfig(**SMALL, num_key_value_heads=2, rope_parameters=plain(10000.0), rms_norm_eps=1e-5), torch.float16, "1GB"),
    "llama3": (
        LlamaConfig(**SMALL, num_key_value_heads=1, rope_parameters=LLAMA3, tie_word_embeddings=True, rms_norm_eps=1e-5),
        torch.bfloat16,
        "16KB",
    ),
    "llama_bias": (
        LlamaConfig(
            **SMALL, num_key_value_heads=2, head_dim=12, rope_parameters=LINEAR, attention_bias=True, mlp_bias=True, eos_token_id=[2, 5]
        ),
        torch.float32,
        "1GB",
    ),
    "qwen2": (Qwen2Config(**SMALL, num_key_value_heads=2, rope_parameters=plain(1000000.0), eos_token_id=2), torch.bfloat16, "1GB"),
    "qwen2_tied": (
        Qwen2Config(**SMALL, num_key_value_heads=2, rope_parameters=plain(1000000.0), tie_word_embeddings=True, eos_token_id=2),
        torch.float32,
        "1GB",
    ),
}


def randomised(config: LlamaConfig | Qwen2Config, dtype: torch.dtype, seed: int) -> torch.nn.Module:
    """A model whose every parameter is random, norms and biases too, with logits of about size one."""
    torch.manual_seed(seed)
    model = (LlamaForCausalLM if config.model_type == "llama" else Qwen2ForCausalLM)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return model.to(dtype)


def as_transformers_4(config: dict) -> dict:
    """The same config.json in the spelling of transformers 4."""
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype", "layer_types")}
    rope = dict(config["rope_parameters"])
    old["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] == "linear":
        rope["type"] = rope.pop("rope_type")
    old["rope_scaling"] = None if rope.get("rope_type") == "default" else rope
    old["torch_dtype"] = config["dtype"]
    return {**old, "transformers_version": "4.43.0"}


def golden(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Logits, loss, gradients and greedy generations of a model in fp32."""
    random = np.random.default_rng(7)
    input_ids = torch.from_numpy(random.integers(3, SMALL["vocab_size"], (2, 40)))
    logits = model(input_ids).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten())
    loss.backward()
    result = {"input_ids": input_ids.numpy(), "logits": logits.detach().numpy(), "loss": loss.detach().numpy()}
    for name, parameter in model.named_parameters():
        result[f"gradient {name}"] = parameter.grad.numpy()
    lengths = [1, 3, 4, 7, 9, 12, 12, 20]
    for row, length in enumerate(lengths):
        prompt = torch.from_numpy(random.integers(3, SMALL["vocab_size"], (1, length)))
        result[f"prompt {row}"] = prompt[0].numpy()
        common = {"max_new_tokens": 16, "do_sample": False, "pad_token_id": 0, "eos_token_id": [2, 11, 30, 50, 77]}
        mask = torch.ones_like(prompt)
        for kind, extra in {
            "greedy": {},
            "penalised": {"repetition_penalty": 1.4},
        }.items():
            output = model.generate(prompt, attention_mask=mask, **common, **extra)
            result[f"{kind} {row}"] = output[0, length:].numpy()
    return result


def sampling() -> dict[str, np.ndarray]:
    """What transformers' processors leave of one table of logits."""
    random = np.random.default_rng(8)
    logits = torch.from_numpy((3 * random.standard_normal((4, 50))).astype("float32"))
    history = torch.from_numpy(random.integers(0, 50, (4, 9)))
    everything = logits.clone()
    for process in (RepetitionPenaltyLogitsProcessor(1.2), TemperatureLogitsWarper(1.5), TopKLogitsWarper(12), TopPLogitsWarper(0.9)):
        everything = process(history, everything)
    return {
        "logits": logits.numpy(),
        "history": history.numpy(),
        "repetition 1.3": RepetitionPenaltyLogitsProcessor(1.3)(history, logits.clone()).numpy(),
        "top_k 5": TopKLogitsWarper(5)(history, logits.clone()).numpy(),
        "top_p 0.8": TopPLogitsWarper(0.8)(history, logits.clone()).numpy(),
        "all": everything.numpy(),
    }


def main(folder: Path) -> None:
    """Write every checkpoint and its golden values."""
    for seed, (name, (config, dtype, shard)) in enumerate(CHECKPOINTS.items()):
        directory = folder / name
        shutil.rmtree(directory, ignore_errors=True)
        model = randomised(config, dtype, seed)
        model.save_pretrained(directory, max_shard_size=shard)
        for path in directory.iterdir():
            path.chmod(0o644)
        source = json.loads((directory / "config.json").read_text())
        old = json.dumps(as_transformers_4(source), indent=2) + "\n"
        (directory / "config.v4.json").write_text(old)
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
        values = golden(model)
        # The old spelling must mean the same to transformers itself.
        old_config = type(config).from_dict(json.loads(old))
        again = AutoModelForCausalLM.from_pretrained(directory, config=old_config, dtype=torch.float32, attn_implementation="eager")
        assert np.array_equal(again(torch.from_numpy(values["input_ids"])).logits.detach().numpy(), values["logits"])
        values["frequencies"] = model.model.rotary_emb.inv_freq.numpy()
        np.savez_compressed(directory / "golden.npz", **values)
    np.savez_compressed(folder / "sampling.npz", **sampling())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
