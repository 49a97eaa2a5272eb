"""TRL's SFTTrainer on the common workload: python trl_sft.py SPEC.json. Runs in TRL's own environment."""

import json
import sys
from pathlib import Path

from datasets import Dataset
from lines import tell_steps
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer
from trl_arguments import common_arguments


def main(spec: dict) -> None:
    """Train as the spec says."""
    rows = Dataset.from_list([json.loads(line) for line in Path(spec["rows"]).read_text().splitlines()])
    arguments = SFTConfig(completion_only_loss=True, **common_arguments(spec))
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    trainer = SFTTrainer(spec["model"], args=arguments, train_dataset=rows, processing_class=tokenizer)
    tell_steps(trainer, Path(spec["lines"]))
    trainer.train()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
