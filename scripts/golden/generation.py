"""Make tests/parity/golden/generation/: what HuggingFace transformers generates with every golden checkpoint.

Needs torch and transformers, which this project does not depend on; run it by hand where they are installed, after logits.py: first with
transformers 5, then with transformers 4 (4.51), the last whose own code holds group beam search and contrastive search:

    python scripts/golden/generation.py tests/parity/golden
    python scripts/golden/generation.py tests/parity/golden --old

Every folder with a config.json and safetensors gets <folder>.json: the ids that end its texts, chosen among those that it says now and
then; and for each way of generating the settings (under paddlealign's names), prompts, and for each prompt the answers with their tokens
and, for beams, their scores. A prompt is taken only where noise of 1e-4 on the scores changes no token, so that the files do not depend
on the last digit of a machine; and every other prompt only where an answer comes to a stop id.
"""

import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LogitsProcessorList, PreTrainedModel, logging

NEW_TOKENS = 12
LENGTHS = (3, 1, 24, 9, 6, 14)
LENGTHS_IN_WINDOW = (3, 2, 4, 1, 3, 4)  # prompt and answer within the window of 16
NOISE = 1e-4
TRIES = 300

KINDS = {
    "greedy": {},
    "greedy, repetition": {"repetition_penalty": 1.4},
    "greedy, n-grams": {"no_repeat_ngram_size": 2, "min_new_tokens": 8},
    "beam 2": {"num_beams": 2},
    "beam 4, long": {"num_beams": 4, "length_penalty": 2.0, "num_return_sequences": 3},
    "beam 4, short": {"num_beams": 4, "length_penalty": -0.5, "num_return_sequences": 4},
    "beam 3, early": {"num_beams": 3, "early_stopping": True, "num_return_sequences": 2},
    "beam 5, all": {
        "num_beams": 5,
        "early_stopping": True,
        "length_penalty": 0.5,
        "min_new_tokens": 6,
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 1.3,
        "num_return_sequences": 2,
    },
}
OLD_KINDS = {
    "groups 2": {"num_beams": 4, "num_beam_groups": 2, "diversity_rate": 0.5, "num_return_sequences": 4},
    "groups 3, early": {
        "num_beams": 3,
        "num_beam_groups": 3,
        "diversity_rate": 1.0,
        "early_stopping": True,
        "length_penalty": 0.3,
        "num_return_sequences": 2,
    },
    "groups 2, all": {
        "num_beams": 6,
        "num_beam_groups": 2,
        "diversity_rate": 0.7,
        "early_stopping": True,
        "min_new_tokens": 5,
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 1.2,
        "num_return_sequences": 3,
    },
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "contrastive, all": {
        "penalty_alpha": 0.3,
        "top_k": 6,
        "min_new_tokens": 6,
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 1.3,
    },
}
THEIR_NAMES = {"diversity_rate": "diversity_penalty"}


def noise(seed: int) -> LogitsProcessorList:
    """A processor that stands behind all others and moves every score by up to NOISE."""
    generator = torch.Generator().manual_seed(seed)

    def move(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores + NOISE * (2 * torch.rand(scores.shape, generator=generator) - 1)

    return LogitsProcessorList([move])


@torch.no_grad()
def answers(
    model: PreTrainedModel, prompt: list[int], settings: dict, stop_ids: list[int], processors: LogitsProcessorList, pad_id: int
) -> list[dict]:
    """The answers to one prompt, each up to and with its stop id, and its score under beams."""
    given = {THEIR_NAMES.get(key, key): value for key, value in settings.items()}
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=stop_ids,
        pad_token_id=pad_id,
        logits_processor=processors,
        return_dict_in_generate=True,
        output_scores=True,
        **given,
    )
    found = []
    for row, ids in enumerate(output.sequences.tolist()):
        tokens = ids[len(prompt) :]
        ends = [place for place, token in enumerate(tokens) if token in stop_ids]
        found.append({"tokens": tokens[: ends[0] + 1] if ends else tokens})
        if "num_beams" in settings:
            found[-1]["score"] = round(float(output.sequences_scores[row]), 6)
    return found


def is_steady(model: PreTrainedModel, prompt: list[int], settings: dict, stop_ids: list[int], expected: list[dict]) -> bool:
    """Whether noise changes no token and not the answers' order, nor does what groups that have ended are padded with."""
    for seed in (1, 2, 3):
        again = answers(model, prompt, settings, stop_ids, noise(seed), pad_id=seed % 2)
        if [answer["tokens"] for answer in again] != [answer["tokens"] for answer in expected]:
            return False
    return True


def prompt_of(model: PreTrainedModel, length: int, *seed: int) -> list[int]:
    """A random prompt."""
    return np.random.default_rng(seed).integers(3, model.config.vocab_size, length).tolist()


def choose_stop_ids(model: PreTrainedModel) -> list[int]:
    """Five tokens that stand in greedy texts now and then: together up to every eighth token."""
    texts = [answers(model, prompt_of(model, 6, 99, row), {}, [], LogitsProcessorList(), 0)[0]["tokens"] for row in range(40)]
    counts = Counter(token for text in texts for token in text)
    return [token for token, count in counts.most_common() if count <= sum(counts.values()) // 40][:5]


def golden(model: PreTrainedModel, settings: dict, stop_ids: list[int], lengths: tuple[int, ...]) -> dict:
    """Settings, prompts of these lengths, and the answers to each."""
    prompts, found = [], []
    for place, length in enumerate(lengths):
        for attempt in range(TRIES):
            prompt = prompt_of(model, length, place, attempt)
            expected = answers(model, prompt, settings, stop_ids, LogitsProcessorList(), pad_id=0)
            ends = any(answer["tokens"][-1] in stop_ids for answer in expected)
            if (ends or place % 2) and is_steady(model, prompt, settings, stop_ids, expected):
                prompts.append(prompt)
                found.append(expected)
                break
        else:
            raise SystemExit(f"{settings}: no prompt of {length} tokens among {TRIES}")
    return {"settings": settings, "prompts": prompts, "answers": found}


def load(directory: Path, old: bool) -> PreTrainedModel:
    """The checkpoint in fp32; under transformers 4 with the config.v4.json where there is one."""
    with tempfile.TemporaryDirectory() as scratch:
        for path in directory.glob("model*"):
            shutil.copy(path, scratch)
        other = directory / "config.v4.json"
        shutil.copy(other if old and other.is_file() else directory / "config.json", Path(scratch) / "config.json")
        dtype = {"torch_dtype" if old else "dtype": torch.float32}
        return AutoModelForCausalLM.from_pretrained(scratch, attn_implementation="eager", **dtype).eval()


def write(folder: Path, old: bool, names: list[str]) -> None:
    """Write the file of every checkpoint, or of those named; with ``old`` add to it what only transformers 4 makes."""
    for directory in sorted(path.parent for path in folder.glob("*/config.json") if list(path.parent.glob("*.safetensors"))):
        if names and directory.name not in names:
            continue
        model = load(directory, old)
        target = folder / "generation" / f"{directory.name}.json"
        target.parent.mkdir(exist_ok=True)
        kinds = json.loads(target.read_text())["kinds"] if old else {}
        stop_ids = json.loads(target.read_text())["stop_ids"] if old else choose_stop_ids(model)
        lengths = LENGTHS
        if old and getattr(model.config, "use_sliding_window", False):
            lengths = LENGTHS_IN_WINDOW  # transformers 4.51 does not compute windows in some layers only
        elif old:
            for prompt, expected in zip(kinds["greedy"]["prompts"], kinds["greedy"]["answers"], strict=True):
                again = answers(model, prompt, {}, stop_ids, LogitsProcessorList(), 0)
                assert again == expected, f"{directory.name}: transformers 4 differs from 5"
        kinds |= {kind: golden(model, settings, stop_ids, lengths) for kind, settings in (OLD_KINDS if old else KINDS).items()}
        text = json.dumps({"stop_ids": stop_ids, "kinds": kinds}, separators=(",", ":"))
        target.write_text(text.replace('"settings"', '\n"settings"').replace('{"tokens"', '\n{"tokens"') + "\n")
        ended = sum(answer["tokens"][-1] in stop_ids for kind in kinds.values() for found in kind["answers"] for answer in found)
        print(f"{directory.name}: stop ids {stop_ids} end {ended} texts")


if __name__ == "__main__":
    logging.set_verbosity_error()
    words = sys.argv[1:]
    write(Path(words[0]), "--old" in words, [word for word in words[1:] if word != "--old"])
