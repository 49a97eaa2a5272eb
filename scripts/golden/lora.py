"""Make tests/parity/golden/lora/: adapters beside the tiny golden checkpoints, and what HuggingFace peft computes with them.

Needs torch, transformers and peft, which this project does not depend on; run it by hand where they are installed:

    python scripts/golden/lora.py tests/parity/golden
    python scripts/golden/lora.py tests/parity/golden --read FOLDER

Each folder holds the adapter as peft saves it and golden.npz: input_ids, logits in float32, the mean cross-entropy of the next token and
its gradients by the adapter's parameters, under their names in the file. With ``--read`` nothing is made: FOLDER/<name>/ is an adapter
that PaddleAlign saved for the golden checkpoint of that name, with logits.npz (input_ids, logits), and peft's logits are held to those.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# the checkpoint's name: rank, alpha, rslora, modules as the family's files name them
ADAPTERS = {
    "llama2_gqa": (4, 8, False, LLAMA),
    "qwen2_tied": (3, 5, True, ["q_proj", "v_proj", "down_proj"]),
    "gpt_neox": (2, 6, False, ["dense", "dense_h_to_4h", "dense_4h_to_h"]),
}


def base_model(folder: Path) -> torch.nn.Module:
    """The golden checkpoint, in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def make(golden: Path, name: str, seed: int) -> None:
    """One adapter of random values, saved, and its figures."""
    rank, alpha, rslora, modules = ADAPTERS[name]
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, use_rslora=rslora, target_modules=modules, task_type="CAUSAL_LM")
    model = get_peft_model(base_model(golden / name), config)
    trained = {key: it for key, it in model.named_parameters() if it.requires_grad}
    for parameter in trained.values():
        torch.nn.init.normal_(parameter, std=0.2)
    ids = torch.randint(0, 96, (2, 20))
    found = model(input_ids=ids)
    loss = torch.nn.functional.cross_entropy(found.logits[:, :-1].reshape(-1, 96), ids[:, 1:].reshape(-1))
    loss.backward()
    folder = golden / "lora" / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config_file = folder / "adapter_config.json"
    told = json.loads(config_file.read_text())
    config_file.write_text(json.dumps({**told, "base_model_name_or_path": name}, indent=2, sort_keys=True) + "\n")
    gradients = {f"gradient {key.replace('.default', '')}": it.grad.numpy() for key, it in trained.items()}
    versions = f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"
    np.savez_compressed(
        folder / "golden.npz",
        versions=np.array(versions),
        input_ids=ids.numpy(),
        logits=found.logits.detach().numpy(),
        loss=np.array(loss.item()),
        **gradients,
    )


def read(golden: Path, folder: Path) -> None:
    """Print how far peft's logits are from those beside each adapter."""
    for adapter in sorted(path for path in folder.iterdir() if path.is_dir()):
        figures = np.load(adapter / "logits.npz")
        model = PeftModel.from_pretrained(base_model(golden / adapter.name), adapter)
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(figures["input_ids"])).logits.numpy()
        print(f"{adapter.name}: {np.abs(logits - figures['logits']).max() / np.abs(logits).max():.1e} of the largest logit")


def main() -> None:
    """Make or read, as the words say."""
    golden = Path(sys.argv[1])
    if "--read" in sys.argv:
        read(golden, Path(sys.argv[3]))
        return
    for seed, name in enumerate(ADAPTERS):
        make(golden, name, seed)


if __name__ == "__main__":
    main()
