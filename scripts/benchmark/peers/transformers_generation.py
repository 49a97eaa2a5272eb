"""transformers' generate on the common prompts: python transformers_generation.py SPEC.json. Runs in TRL's own environment."""

import json
import sys
from pathlib import Path

import torch
from timing import padded_batches, until_end, write_timed
from transformers import AutoModelForCausalLM

PAD, END = 0, 2


def main(spec: dict) -> None:
    """Generate as the spec says."""
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(spec["seed"])
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32).eval()
    draw = {"do_sample": True, "top_k": 50, "top_p": 0.9, "temperature": 1.0} if spec["sampling"] else {"do_sample": False}

    def answers(new_tokens: int) -> list[list[int]]:
        found = [[]] * len(spec["prompts"])
        for places, ids, mask in padded_batches(spec["prompts"], spec["batch"]):
            with torch.inference_mode():
                given = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
                texts = model.generate(**given, max_new_tokens=new_tokens, eos_token_id=END, pad_token_id=PAD, **draw)
            for place, text in zip(places, texts[:, len(ids[0]) :].tolist(), strict=True):
                found[place] = until_end(text, END)
        return found

    write_timed(spec, answers)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
