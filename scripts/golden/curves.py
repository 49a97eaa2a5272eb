"""Losses and gradient norms of 30 steps of TRL's DPOTrainer (sigmoid, ipo) and SFTTrainer: tests/parity/golden/curves.json.

    python -m venv peers && peers/bin/pip install torch==2.13.0 trl==1.16.0 transformers
    PYTHONPATH=. peers/bin/python scripts/golden/curves.py tests/parity/golden/llama2_gqa tests/parity/golden/curves.json

Both sides start from the same checkpoint in float32 and see the same tokens in the same order (``data.order``, written into the file),
four rows a step as two micro-batches of two. AdamW, linear decay after three steps of warm-up, clipping at norm 1. So that TRL means
what is meant here:

- Its gradient checkpointing and bf16, on by default, are off, and so is the random order; the rows are given as tokens, in order.
- Its DPO averages the means of the micro-batches. They are of one size here, so that this is the mean over the pairs.
- Its SFT divides by the labels of the whole step since transformers 4.46; the rows are of uneven lengths.
- The reference is computed by TRL from its own frozen copy of the model.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from paddlealign.data.order import epoch_plan

ROWS, STEPS, PER_STEP, SEED = 12, 30, 4, 5
SETTINGS = {"learning_rate": 2e-3, "warmup_steps": 3, "weight_decay": 0.05, "adam_beta2": 0.99, "max_grad_norm": 1.0}
LOSSES: dict[str, dict[str, Any]] = {"sigmoid": {"beta": 0.3}, "ipo": {"beta": 0.2}, "sft": {}}


def draw() -> list[dict[str, list[int]]]:
    """Rows of random tokens and uneven lengths."""
    rng = np.random.default_rng(3)
    longest = {"prompt_ids": 12, "chosen_ids": 16, "rejected_ids": 16}
    return [{name: rng.integers(3, 96, rng.integers(2, most)).tolist() for name, most in longest.items()} for _ in range(ROWS)]


def order() -> list[list[int]]:
    """Which rows each step takes."""
    steps: list[list[int]] = []
    epoch = 0
    while len(steps) < STEPS:
        plan = epoch_plan([1] * ROWS, seed=SEED, epoch=epoch, max_length=1, micro_batch_size=PER_STEP)
        steps += [[index for row in plan.step(number)[0][0] for index in row] for number in range(plan.steps)]
        epoch += 1
    return steps[:STEPS]


def tokenizer() -> PreTrainedTokenizerFast:
    """One that a trainer asks for its padding only."""
    words = {f"<{index}>": index for index in range(96)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, "<0>")), pad_token="<0>", bos_token="<1>", eos_token="<2>", unk_token="<0>"
    )


class TokenDPOTrainer(DPOTrainer):
    """Takes rows that are tokens already."""

    def _prepare_dataset(self, dataset: Dataset, processing_class: Any, args: DPOConfig, dataset_name: str) -> Dataset:
        return dataset


def train(checkpoint: Path, name: str, keys: dict[str, Any], rows: list[dict[str, list[int]]]) -> list[dict[str, float]]:
    """One run; the lines of its log."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        common: dict[str, Any] = {
            "output_dir": folder, "per_device_train_batch_size": PER_STEP // 2, "gradient_accumulation_steps": 2, "max_steps": STEPS,
            "logging_steps": 1, "lr_scheduler_type": "linear", "optim": "adamw_torch", "adam_epsilon": 1e-8, "bf16": False, "use_cpu": True,
            "gradient_checkpointing": False, "train_sampling_strategy": "sequential", "report_to": [], "save_strategy": "no",
            "disable_tqdm": True, "max_length": None, "logging_nan_inf_filter": False, **SETTINGS,
        }  # fmt: skip
        if name == "sft":
            labels = [[-100] * len(row["prompt_ids"]) + row["chosen_ids"] for row in rows]
            whole = [{"input_ids": row["prompt_ids"] + row["chosen_ids"], "labels": it} for row, it in zip(rows, labels, strict=True)]
            data = Dataset.from_list(whole)
            trainer: Any = SFTTrainer(model, SFTConfig(**common), train_dataset=data, processing_class=tokenizer())
        else:
            settings = DPOConfig(**common, loss_type=[name], remove_unused_columns=False, **keys)
            trainer = TokenDPOTrainer(model, None, settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer())
        trainer.train()
    lines = [line for line in trainer.state.log_history if "grad_norm" in line]  # the run's summary has none
    assert len(lines) == STEPS
    return [{name: float(line[name]) for name in ("loss", "grad_norm", "learning_rate")} for line in lines]


def main(checkpoint: Path, output: Path) -> None:
    """Train with every loss and write the file."""
    rows, steps = draw(), order()
    fed = [rows[index] for step in steps for index in step]
    curves = {name: train(checkpoint, name, keys, fed) for name, keys in LOSSES.items()}
    made = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    found = {"made with": made, "settings": SETTINGS, "losses": LOSSES, "rows": rows, "order": steps, "curves": curves}
    output.write_text(json.dumps(found) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
