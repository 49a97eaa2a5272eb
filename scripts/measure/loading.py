"""Measure the memory that loading and saving a model take: python scripts/measure/loading.py FOLDER

Makes random LLaMA checkpoints of about 2 GB in FOLDER (8.6 GB of disk in all; they are kept and used again), then loads each in a fresh
process and saves it again, and prints for each: seconds, the peak of the resident memory above what it was after the imports, and that
peak as a share of the model's size in memory; then the same of saving, above the loaded model. tests/end_to_end/test_memory.py holds a
smaller one to the same limits.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHAPE = {"hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 5632, "vocab_size": 32000}
WIDE = {**SHAPE, "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128256, "tie_word_embeddings": True}
# name: (shape, layers, dtype, bytes of a shard)
CHECKPOINTS = {
    "bfloat16": (SHAPE, 20, "bfloat16", 1 << 40),
    "bfloat16_sharded": (SHAPE, 20, "bfloat16", 500_000_000),
    "float32": (SHAPE, 9, "float32", 1 << 40),
    "bfloat16_large_vocabulary": (WIDE, 16, "bfloat16", 1 << 40),
}
RUNS = (
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
    ("bfloat16_sharded", "bfloat16"),
    ("bfloat16_sharded", "float32"),
    ("float32", "float32"),
    ("bfloat16_large_vocabulary", "bfloat16"),
    ("bfloat16_large_vocabulary", "float32"),
)


def make(folder: Path, shape: dict, layers: int, dtype: str, shard_bytes: int) -> None:
    """Write a checkpoint of random weights, a tensor at a time."""
    import numpy as np

    from paddlealign.models.tensor_files import TensorSpec, write_json, write_streamed
    from paddlealign.models.tensor_places import numpy_dtype

    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    keys = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    sizes = {"model.embed_tokens.weight": (shape["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for layer in range(layers):
        parts = {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (keys, hidden), "self_attn.v_proj": (keys, hidden)}
        parts |= {"self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden)}
        parts |= {"mlp.down_proj": (hidden, inner), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
        sizes |= {f"model.layers.{layer}.{name}.weight": size for name, size in parts.items()}
    if not shape.get("tie_word_embeddings"):
        sizes["lm_head.weight"] = (shape["vocab_size"], hidden)
    random = np.random.default_rng(0)
    shards: list[list[TensorSpec]] = [[]]
    for name, size in sizes.items():
        spec = TensorSpec(name, dtype, size)
        if sum(it.size for it in shards[-1]) + spec.size > shard_bytes:
            shards.append([])
        shards[-1].append(spec)
    folder.mkdir(parents=True)
    index = {}
    for number, specs in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        index |= {spec.name: file for spec in specs}

        def tensor(name: str) -> list[np.ndarray]:
            return [(0.02 * random.standard_normal(sizes[name], "float32")).astype(numpy_dtype(dtype))]

        write_streamed(folder / file, specs, tensor, {"format": "pt"})
    if len(shards) > 1:
        write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    write_json(folder / "config.json", {"model_type": "llama", **shape, "num_hidden_layers": layers, "torch_dtype": dtype})


def resident(key: str) -> int:
    """VmRSS (now) or VmHWM (the highest since it was last reset) of this process in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def reset_peak() -> int:
    """Let VmHWM begin anew; returns what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def measure(folder: Path, dtype: str, copy: Path) -> None:
    """Load and save in this process, and print a line of JSON."""
    sys.path.insert(0, str(ROOT))
    from paddlealign.machine import prepare

    prepare()
    from paddlealign.models.weights import load_model, save_model

    load_model(ROOT / "tests" / "parity" / "golden" / "llama1", dtype)  # what Paddle makes once, whatever the model
    before = reset_peak()
    began = time.perf_counter()
    model = load_model(folder, dtype)
    seconds = time.perf_counter() - began
    peak = resident("VmHWM") - before
    size = sum(parameter.size for parameter in model.parameters()) * (4 if dtype == "float32" else 2)
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    loaded = reset_peak()
    began = time.perf_counter()
    save_model(model.state_dict().__getitem__, model.config, copy, {}, model.config.dtype)
    saving = resident("VmHWM") - loaded
    print(json.dumps([stored, size, peak, seconds, saving, time.perf_counter() - began]))


def main(folder: Path) -> None:
    """Make what is missing, and measure each run in a process of its own."""
    sys.path.insert(0, str(ROOT))
    for name, (shape, layers, dtype, shard_bytes) in CHECKPOINTS.items():
        if not (folder / name / "config.json").exists():
            shutil.rmtree(folder / name, ignore_errors=True)
            make(folder / name, shape, layers, dtype, shard_bytes)
    print("| checkpoint | files, GB | loaded as | model, GB | peak, GB | peak / model | s | peak of saving, GB | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, dtype in RUNS:
        copy = folder / "copy"
        words = [sys.executable, str(Path(__file__).resolve()), str(folder / name), dtype, str(copy)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        shutil.rmtree(copy, ignore_errors=True)
        if done.returncode:
            sys.exit(done.stderr)
        stored, size, peak, seconds, saving, saved = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {name} | {stored / 1e9:.2f} | {dtype} | {size / 1e9:.2f} | {peak / 1e9:.2f} | {peak / size:.3f} | {seconds:.1f} "
            f"| {saving / 1e9:.2f} | {saved:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    elif len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        sys.exit(__doc__)
