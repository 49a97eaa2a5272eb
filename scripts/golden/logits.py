"""Make tests/parity/golden/: tiny random checkpoints and what HuggingFace transformers computes with them.

Needs torch and transformers, which this project does not depend on; run it by hand where they are installed, first with transformers 5,
then with transformers 4 (4.51 or later), which writes each config.json as it spells it and must compute the same:

    python scripts/golden/logits.py tests/parity/golden
    python scripts/golden/logits.py tests/parity/golden --old

For each checkpoint: config.json (as transformers 5 writes it), config.v4.json (as transformers 4 does), safetensors, and golden.npz with
input_ids, logits in fp32, the mean cross-entropy of the next token and the gradients of every parameter; the logits of one long row, of
left-padded rows, and the log-probs of pairs of responses, each with its prompt as a row of its own. sampling.npz holds what
transformers' logits processors make of one table of logits, rope.json what it makes of many rope settings.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

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


DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}
SHORT = {**SMALL, "max_position_embeddings": 32}
WINDOW = {"use_sliding_window": True, "sliding_window": 16}
PYTHIA = {**SMALL, "num_attention_heads": 2}

# name: (config, dtype, largest shard). New ones come last: a checkpoint's place is its seed.
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
    "llama_dynamic": (LlamaConfig(**SHORT, num_key_value_heads=2, rope_parameters=DYNAMIC), torch.float32, "1GB"),
    "llama_yarn": (LlamaConfig(**SMALL, num_key_value_heads=2, rope_parameters=YARN), torch.float32, "1GB"),
    "mistral": (
        MistralConfig(**SMALL, num_key_value_heads=2, head_dim=12, sliding_window=16, rope_parameters=plain(10000.0), rms_norm_eps=1e-5),
        torch.bfloat16,
        "1GB",
    ),
    "mistral_v3": (
        MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=None, rope_parameters=plain(1000000.0), rms_norm_eps=1e-5),
        torch.bfloat16,
        "16KB",
    ),
    "qwen2_window": (
        Qwen2Config(**SMALL, **WINDOW, max_window_layers=1, num_key_value_heads=1, rope_parameters=plain(1000000.0), eos_token_id=2),
        torch.float32,
        "1GB",
    ),
    "qwen25_yarn": (
        Qwen2Config(**SMALL, num_key_value_heads=2, rope_parameters={**YARN, "rope_theta": 1e6}, eos_token_id=2), torch.bfloat16, "1GB"
    ),
    "qwen3": (
        Qwen3Config(
            **SMALL, num_key_value_heads=2, head_dim=16, rope_parameters=plain(1000000.0), tie_word_embeddings=True, eos_token_id=[2, 5]
        ),
        torch.bfloat16,
        "1GB",
    ),
    "qwen3_window": (
        Qwen3Config(
            **SMALL, **WINDOW, max_window_layers=0, num_key_value_heads=4, head_dim=6, rope_parameters=plain(1000000.0), attention_bias=True
        ),
        torch.float32,
        "1GB",
    ),
    "pythia": (
        GPTNeoXConfig(**PYTHIA, rope_parameters={**plain(10000.0), "partial_rotary_factor": 0.25}, eos_token_id=0), torch.float16, "1GB"
    ),
    "gpt_neox": (
        GPTNeoXConfig(
            **PYTHIA, rope_parameters={**LINEAR, "partial_rotary_factor": 0.5}, use_parallel_residual=False, hidden_act="gelu_fast",
            attention_bias=False,
        ),
        torch.float32,
        "16KB",
    ),
    "phi3": (
        Phi3Config(
            **SMALL, num_key_value_heads=2, sliding_window=20, rope_parameters={**plain(10000.0), "partial_rotary_factor": 0.75},
            pad_token_id=0, eos_token_id=2,
        ),
        torch.bfloat16,
        "16KB",
    ),
}  # fmt: skip


def randomised(config: PretrainedConfig, dtype: torch.dtype, seed: int) -> torch.nn.Module:
    """A model whose every parameter is random, norms and biases too, with logits of about size one."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return model.to(dtype)


def as_transformers_4(config: dict) -> dict:
    """The same config.json in the spelling of transformers 4, for transformers 4 to read and write again."""
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype", "layer_types")}
    rope = dict(config["rope_parameters"])
    share = rope.pop("partial_rotary_factor", None)
    if config["model_type"] == "phi3":
        old["partial_rotary_factor"] = share
    if config["model_type"] == "gpt_neox":
        old["rotary_emb_base"], old["rotary_pct"] = rope.pop("rope_theta"), share
    else:
        old["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] == "linear":
        rope["type"] = rope.pop("rope_type")
    old["rope_scaling"] = None if rope.get("rope_type") == "default" else rope
    old["torch_dtype"] = config["dtype"]
    return {**old, "transformers_version": "4"}


def token_rows(seed: int, lengths: list[int]) -> list[torch.Tensor]:
    """Rows of random tokens, int64 [1, length] each."""
    random = np.random.default_rng(seed)
    return [torch.from_numpy(random.integers(3, SMALL["vocab_size"], (1, length))) for length in lengths]


def golden(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Logits, loss, gradients, and logits of long, padded and paired rows, in fp32."""
    input_ids = torch.cat(token_rows(7, [40, 40]))
    logits = model(input_ids).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten())
    loss.backward()
    result = {"input_ids": input_ids.numpy(), "logits": logits.detach().numpy(), "loss": loss.detach().numpy()}
    for name, parameter in model.named_parameters():
        # transformers 5 calls GPT-NeoX's head lm_head in memory, and embed_out in the file.
        stored = name.replace("lm_head", "embed_out") if model.config.model_type == "gpt_neox" else name
        result[f"gradient {stored}"] = parameter.grad.numpy()
    with torch.no_grad():
        (row,) = token_rows(8, [128])
        result |= {"long input_ids": row.numpy(), "long logits": model(row).logits.numpy()}
        result |= padded(model, token_rows(9, [30, 5, 17]))
        result |= paired(model)
    return result


def padded(model: torch.nn.Module, rows: list[torch.Tensor]) -> dict[str, np.ndarray]:
    """Logits after each left-padded row."""
    width = max(row.shape[1] for row in rows)
    mask = torch.tensor([[0] * (width - row.shape[1]) + [1] * row.shape[1] for row in rows])
    input_ids = torch.cat([torch.nn.functional.pad(row, (width - row.shape[1], 0)) for row in rows])
    logits = model(input_ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits[:, -1]
    return {f"padded {i}": row[0].numpy() for i, row in enumerate(rows)} | {"padded logits": logits.numpy()}


def paired(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Log-probs of the tokens of two responses to each of three prompts."""
    result = {}
    for number, lengths in enumerate([[9, 20, 4], [25, 1, 30], [3, 2, 2]]):
        prompt, *responses = token_rows(10 + number, lengths)
        result[f"pair {number} prompt"] = prompt[0].numpy()
        for side, response in zip(("chosen", "rejected"), responses, strict=True):
            logits = model(torch.cat([prompt, response], 1)).logits[0, prompt.shape[1] - 1 : -1]
            logps = logits.log_softmax(-1).gather(1, response[0][:, None])[:, 0]
            result |= {f"pair {number} {side}": response[0].numpy(), f"pair {number} {side} logps": logps.numpy()}
    return result


def ropes() -> list[dict]:
    """What transformers makes of many rope settings: frequencies and the factor on cosine and sine."""
    scaled = {"original_max_position_embeddings": 4096, "rope_theta": 10000.0}
    settings = [
        ({"rope_type": "linear", "factor": 3.0, "rope_theta": 1e6}, None),
        *(({"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}, length) for length in (7, 4096, 4097, 16384)),
        ({"rope_type": "dynamic", "factor": 1.0, "rope_theta": 5e5}, 10000),
        ({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **scaled}, None),
        ({"rope_type": "yarn", "factor": 4.0, **scaled}, None),
        ({"rope_type": "yarn", "factor": 16.0, "beta_fast": 40, "beta_slow": 2, **scaled, "rope_theta": 1e6}, None),
        ({"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.707, **scaled}, None),
        ({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.7, "truncate": False, **scaled}, None),
        ({"rope_type": "yarn", "factor": 1.0, "truncate": False, **scaled}, None),
    ]
    result = []
    for parameters, length in settings:
        config = LlamaConfig(hidden_size=256, num_attention_heads=2, max_position_embeddings=4096, rope_parameters=dict(parameters))
        values, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu", seq_len=length)
        result.append({"parameters": parameters, "length": length or 0, "frequencies": values.tolist(), "attention_factor": factor})
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


def write_all(folder: Path) -> None:
    """Write every checkpoint and its golden values; needs transformers 5."""
    for seed, (name, (config, dtype, shard)) in enumerate(CHECKPOINTS.items()):
        directory = folder / name
        shutil.rmtree(directory, ignore_errors=True)
        model = randomised(config, dtype, seed)
        model.save_pretrained(directory, max_shard_size=shard)
        for path in directory.iterdir():
            path.chmod(0o644)
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
        np.savez_compressed(directory / "golden.npz", **golden(model))
    np.savez_compressed(folder / "sampling.npz", **sampling())
    (folder / "rope.json").write_text(json.dumps(ropes()) + "\n")


def write_old(folder: Path) -> None:
    """Write every config.json as transformers 4 spells it, and hold its logits to those of transformers 5."""
    for name in CHECKPOINTS:
        directory = folder / name
        source = as_transformers_4(json.loads((directory / "config.json").read_text()))
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / "config.json").write_text(json.dumps(source))
            config = AutoConfig.from_pretrained(scratch)
            config.save_pretrained(scratch)
            written = (Path(scratch) / "config.json").read_text()
            for path in directory.glob("model*"):
                shutil.copy(path, scratch)
            model = AutoModelForCausalLM.from_pretrained(scratch, torch_dtype=torch.float32, attn_implementation="eager").eval()
        (directory / "config.v4.json").write_text(written)
        if getattr(config, "use_sliding_window", False):
            continue  # transformers 4.51 says itself that it does not compute windows in some layers only
        values = np.load(directory / "golden.npz")
        for rows, logits in (("input_ids", "logits"), ("long input_ids", "long logits")):
            again = model(torch.from_numpy(values[rows])).logits.detach().numpy()
            print(f"{name}: {logits} differ by {np.abs(again - values[logits]).max():.1e}")
            assert np.abs(again - values[logits]).max() <= 1e-5


if __name__ == "__main__":
    (write_old if "--old" in sys.argv else write_all)(Path(sys.argv[1]))
