"""PaddleNLP's Trainer on the chosen responses of the common workload: python paddlenlp_sft.py SPEC.json.

Rows are padded to the longest of their step, the way that was the faster one of its two.
"""

import json
import sys
from pathlib import Path

import numpy as np
from lines import tell_steps
from paddlenlp.trainer import Trainer
from paddlenlp.transformers import LlamaForCausalLM
from paddlenlp_arguments import keep_the_order, read_steps, training_arguments

IGNORED = -100


def padded(pairs: list[dict[str, list[int]]]) -> dict[str, np.ndarray]:
    """A step's rows: ids without the last token, labels one token ahead. Causal attention never looks at padding on the right."""
    length = max(len(pair["prompt"]) + len(pair["chosen"]) for pair in pairs) - 1
    ids = np.zeros((len(pairs), length), np.int64)
    labels = np.full((len(pairs), length), IGNORED, np.int64)
    for number, pair in enumerate(pairs):
        tokens = pair["prompt"] + pair["chosen"]
        ids[number, : len(tokens) - 1] = tokens[:-1]
        labels[number, len(pair["prompt"]) - 1 : len(tokens) - 1] = pair["chosen"]
    return {"input_ids": ids, "labels": labels}


def main(spec: dict) -> None:
    """Train as the spec says."""
    steps = [padded(pairs) for pairs in read_steps(spec)]
    trainer = Trainer(
        model=LlamaForCausalLM.from_pretrained(spec["model"], dtype="float32"),
        args=training_arguments(spec, len(steps)),
        train_dataset=steps,
        data_collator=lambda rows: rows[0],
    )
    keep_the_order(trainer)
    tell_steps(trainer, Path(spec["lines"]))
    trainer.train()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
