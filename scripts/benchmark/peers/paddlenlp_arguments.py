"""What PaddleNLP's two trainers are given alike: arguments, and rows in their order."""

import json
from pathlib import Path
from typing import Any

from paddle.io import BatchSampler, SequenceSampler
from paddlenlp.trainer import Trainer, TrainingArguments


def keep_the_order(trainer: Trainer) -> None:
    """Let the trainer take the steps as they stand; its own sampler shuffles."""
    trainer._get_train_sampler = lambda: BatchSampler(sampler=SequenceSampler(trainer.train_dataset), batch_size=1)


def read_steps(spec: dict[str, Any]) -> list[list[dict[str, list[int]]]]:
    """The pairs of each step, as token ids."""
    pairs = [json.loads(line) for line in Path(spec["rows"]).read_text().splitlines()]
    size = spec["batch"]
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def training_arguments(spec: dict[str, Any], steps: int) -> TrainingArguments:
    """The arguments; a row of the data set is a whole step."""
    return TrainingArguments(
        output_dir=spec["output_dir"],
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        max_steps=steps,
        learning_rate=spec["learning_rate"],
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to=["none"],
        disable_tqdm=True,
        device="cpu",
        do_train=True,
        seed=spec["seed"],
        remove_unused_columns=False,
    )
