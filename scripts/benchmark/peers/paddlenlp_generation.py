"""PaddleNLP's generate on the common prompts: python paddlenlp_generation.py SPEC.json."""

import json
import sys
from pathlib import Path

import paddle
from paddlenlp.transformers import LlamaForCausalLM
from timing import padded_batches, until_end, write_timed

PAD, END = 0, 2


def main(spec: dict) -> None:
    """Generate as the spec says."""
    paddle.seed(spec["seed"])
    model = LlamaForCausalLM.from_pretrained(spec["model"], dtype="float32")
    model.eval()
    draw = {"decode_strategy": "sampling", "top_k": 50, "top_p": 0.9, "temperature": 1.0}
    how = draw if spec["sampling"] else {"decode_strategy": "greedy_search"}

    def answers(new_tokens: int) -> list[list[int]]:
        found = [[]] * len(spec["prompts"])
        for places, ids, mask in padded_batches(spec["prompts"], spec["batch"]):
            shown = paddle.to_tensor(mask)
            given = {"input_ids": paddle.to_tensor(ids), "attention_mask": shown, "position_ids": (shown.cumsum(-1) - 1).clip(0)}
            with paddle.no_grad():
                texts, _ = model.generate(**given, max_new_tokens=new_tokens, eos_token_id=END, pad_token_id=PAD, use_cache=True, **how)
            for place, text in zip(places, texts.tolist(), strict=True):
                found[place] = until_end(text, END)
        return found

    write_timed(spec, answers)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
