"""Load model folders that PaddleAlign wrote with HuggingFace transformers, and hold their logits to the golden ones.

Needs torch and transformers, which this project does not depend on; run it by hand where they are installed. For each checkpoint NAME of
tests/parity/golden first, with this project's Python:

    python -m paddlealign.export --model_name_or_path tests/parity/golden/NAME --output_dir WRITTEN/NAME --max_shard_size 20KB

then

    python scripts/golden/read_back.py WRITTEN tests/parity/golden

prints for each folder of WRITTEN its weight files, what transformers missed or found too much, and the largest difference of the logits.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM


def difference(folder: Path, golden: Path) -> tuple[int, list[str], float]:
    """Weight files, keys that are missing or left over, and the largest difference of the logits in float32."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, torch_dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    values = np.load(golden / "golden.npz")
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(values["input_ids"])).logits.numpy()
    wrong = [key for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[kind]]
    return len(list(folder.glob("*.safetensors"))), wrong, float(np.abs(logits - values["logits"]).max())


def main(written: Path, golden: Path) -> None:
    """Print a line for each folder."""
    print(f"transformers {transformers.__version__}, torch {torch.__version__}\n| checkpoint | files | wrong keys | largest difference |")
    print("|---|---|---|---|")
    for folder in sorted(path.parent for path in written.glob("*/config.json")):
        files, wrong, worst = difference(folder, golden / folder.name)
        print(f"| {folder.name} | {files} | {', '.join(wrong) or 'none'} | {worst:.1e} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
