"""PaddleNLP's DPOTrainer on the common workload: python paddlenlp_dpo.py SPEC.json.

Its way: pairs packed into rows of max_length tokens behind a dense mask, a prompt once for both responses, a live reference. Its
accumulation does not weigh micro-batches by their pairs, so that the rows of a step are one batch.
"""

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from lines import tell_steps
from paddlenlp.datasets.zero_padding_dataset import ZeroPadding, generate_greedy_packs
from paddlenlp.transformers import LlamaForCausalLM
from paddlenlp.trl import DPOTrainer, preference_collate_fn
from paddlenlp_arguments import keep_the_order, read_steps, training_arguments

DPO = SimpleNamespace(
    loss_type="sigmoid",
    label_smoothing=0.0,
    pref_loss_ratio=1.0,
    sft_loss_ratio=0.0,
    reference_free=False,
    lora=False,
    ref_model_update_steps=-1,
)


def record(pair: dict[str, list[int]]) -> dict[str, Any]:
    """A pair as PaddleNLP's preprocessing lays it: the prompt's last token begins both responses."""
    prompt, last = pair["prompt"][:-1], pair["prompt"][-1:]
    responses = [last + pair["chosen"][:-1], last + pair["rejected"][:-1]]
    first, both = len(prompt) + len(responses[0]), len(prompt) + len(responses[0]) + len(responses[1])
    mask = np.tri(both, both, dtype=bool)
    mask[first:, len(prompt) : first] = False
    return {
        "input_ids": prompt + responses[0] + responses[1],
        "position_ids": [*range(first), *range(len(prompt), len(prompt) + len(responses[1]))],
        "response_0_labels": [0] * len(prompt) + pair["chosen"] + [0] * len(responses[1]),
        "response_1_labels": [0] * first + pair["rejected"],
        "response_indexs": [len(prompt), first, both, 1],
        "attention_mask": mask,
    }


def packed(pairs: list[dict[str, list[int]]], max_length: int) -> list[dict[str, Any]]:
    """A step's pairs as packed rows."""
    packs = generate_greedy_packs([record(pair) for pair in pairs], max_length)
    return [ZeroPadding._pad_batch_records(pack) for pack in packs if pack]


def main(spec: dict) -> None:
    """Train as the spec says."""
    steps = [packed(pairs, spec["row_length"]) for pairs in read_steps(spec)]
    policy, reference = (LlamaForCausalLM.from_pretrained(spec["model"], dtype="float32") for _ in range(2))
    collate = partial(preference_collate_fn, max_seq_len=spec["row_length"])
    # fleet's wrapper, which the trainer puts around a reference, computes wrongly in one process under Paddle 3.3.
    DPOTrainer._wrap_ref_model = lambda self, model: model
    DPO.beta = spec["beta"]
    trainer = DPOTrainer(
        model=policy,
        ref_model=reference,
        dpo_config=DPO,
        args=training_arguments(spec, len(steps)),
        train_dataset=steps,
        data_collator=lambda rows: collate(rows[0]),
    )
    keep_the_order(trainer)
    tell_steps(trainer, Path(spec["lines"]))
    trainer.train()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
