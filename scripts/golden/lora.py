"""Make tests/parity/golden/lora/: adapters beside the tiny golden checkpoints, and what HuggingFace peft computes with them.

Needs torch, transformers and peft, which this project does not depend on; run it by hand where they are installed:

    python scripts/golden/lora.py tests/parity/golden
    python scripts/golden/lora.py tests/parity/golden --read FOLDER

Each folder holds the adapter as peft saves it and golden.npz: input_ids, logits in float32 (of a reward model one for each row), the loss
and its gradients by the adapter's parameters, under their names in the file. The loss is the mean cross-entropy of the next token, or of a
reward model that of the first row above the second. With ``--read`` nothing is made: FOLDER/<name>/ is an adapter that PaddleAlign saved
for the checkpoint of that name in ADAPTERS, with logits.npz (input_ids, logits), and peft's logits are held to those.
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
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NEOX = ["dense", "dense_h_to_4h", "dense_4h_to_h"]
# name: checkpoint, rank, alpha, rslora, modules as the family's files name them, task
ADAPTERS = {
    "llama2_gqa": ("llama2_gqa", 4, 8, False, LLAMA, "CAUSAL_LM"),
    "qwen2_tied": ("qwen2_tied", 3, 5, True, ["q_proj", "v_proj", "down_proj"], "CAUSAL_LM"),
    "gpt_neox": ("gpt_neox", 2, 6, False, NEOX, "CAUSAL_LM"),
    "reward_llama2_gqa": ("llama2_gqa", 2, 4, False, LLAMA, "SEQ_CLS"),
    "reward_gpt_neox": ("gpt_neox", 2, 3, True, NEOX, "SEQ_CLS"),
}


def base_model(golden: Path, name: str) -> torch.nn.Module:
    """The checkpoint of an adapter, in float32; for a reward model with a new head, which the adapter's takes the place of."""
    checkpoint, task = golden / ADAPTERS[name][0], ADAPTERS[name][-1]
    if task == "CAUSAL_LM":
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=1, dtype=torch.float32, attn_implementation="eager")
    model.config.pad_token_id = 0
    return model.eval()


def loss_of(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """logits: [rows, length, vocab], or of a reward model [rows, 1]."""
    if logits.ndim == 2:
        return -torch.nn.functional.logsigmoid(logits[0, 0] - logits[1, 0])
    return torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 96), ids[:, 1:].reshape(-1))


def make(golden: Path, name: str, seed: int) -> None:
    """One adapter of random values, saved, and its figures."""
    checkpoint, rank, alpha, rslora, modules, task = ADAPTERS[name]
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, use_rslora=rslora, target_modules=modules, task_type=task)
    model = get_peft_model(base_model(golden, name), config)
    trained = {key: it for key, it in model.named_parameters() if it.requires_grad}
    for parameter in trained.values():
        torch.nn.init.normal_(parameter, std=0.2)
    ids = torch.randint(0 if task == "CAUSAL_LM" else 1, 96, (2, 20))  # a reward is read at the last token that is not 0
    found = model(input_ids=ids)
    loss = loss_of(found.logits, ids)
    loss.backward()
    folder = golden / "lora" / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config_file = folder / "adapter_config.json"
    told = json.loads(config_file.read_text())
    config_file.write_text(json.dumps({**told, "base_model_name_or_path": checkpoint}, indent=2, sort_keys=True) + "\n")
    gradients = {f"gradient {key.replace('.default', '').replace('.modules_to_save', '')}": it.grad.numpy() for key, it in trained.items()}
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
    """Print how far peft's logits, or rewards, are from those beside each adapter."""
    for adapter in sorted(path for path in folder.iterdir() if path.is_dir()):
        figures = np.load(adapter / "logits.npz")
        model = PeftModel.from_pretrained(base_model(golden, adapter.name), adapter)
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(figures["input_ids"])).logits.numpy()
        print(f"{adapter.name}: {np.abs(logits - figures['logits']).max() / np.abs(logits).max():.1e} of the largest")


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
