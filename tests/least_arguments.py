"""The least argument file of each command, and how the argument tests parse it."""

import json

import pytest

from paddlealign.arguments import parse
from paddlealign.errors import UserError

SFT = {"model_name_or_path": "m", "dataset_name_or_path": "d", "output_dir": "o", "do_train": True}
DPO = {"model_name_or_path": "m", "train_dataset_path": "t.jsonl", "dev_dataset_path": "v.jsonl", "output_dir": "o", "do_train": True}
PREDICT = {"model_name_or_path": "m", "data_file": "rows.jsonl"}
SCORING = {"model_name_or_path": "m", "data_file": "rows.jsonl"}
JUDGE = {"answers_a": "a.jsonl", "answers_b": "b.jsonl", "reward_model_name_or_path": "m"}
COMPARE = {**SCORING, "baseline_model_name_or_path": "b"}
EXPORT = {"model_name_or_path": "m", "output_dir": "o"}
PLAN = {"devices": 8}
EVALUATE = {"evaluate_rewards": SCORING, "evaluate_perplexity": SCORING, "evaluate_judge": JUDGE, "evaluate_compare": COMPARE}
BASE = {"sft": SFT, "reward": DPO, "dpo": DPO, "predict": PREDICT, **EVALUATE, "export": EXPORT, "plan": PLAN}


def run(tmp_path, command="sft", *words, **keys):
    """Parse the command's least file with more keys in it, and more words behind it."""
    path = tmp_path / "args.json"
    path.write_text(json.dumps({**BASE[command], **keys}, indent=2), encoding="utf-8")
    return parse(command, [str(path), *words], {})


def refused(tmp_path, command="sft", *words, **keys) -> str:
    with pytest.raises(UserError) as caught:
        run(tmp_path, command, *words, **keys)
    return str(caught.value)
