"""Make tests/parity/golden/reward/: what HuggingFace transformers and TRL compute with reward models of the golden checkpoints.

Needs torch, transformers and trl, which this project does not depend on; run it by hand where they are installed, after logits.py:

    python scripts/golden/rewards.py tests/parity/golden

writes rewards.npz: for each checkpoint a score head, the rewards of three pairs in one padded batch, the loss with margins and a
centring term, for FULL the gradients of every parameter, and the names of all parameters; <checkpoint>/config.json as transformers writes
it for such a model, for FULL with the weights; and curve.json: 30 steps of TRL's RewardTrainer from CURVE's weights, with its rows.

    python scripts/golden/rewards.py tests/parity/golden --read FOLDER SCORES.jsonl

loads a model that reward_main.py wrote, with its tokenizer, by AutoModelForSequenceClassification, and holds its rewards of pairs to those
that evaluate.py rewards wrote.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models
from torch.utils.data import SequentialSampler
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

CHECKPOINTS = ("llama2_gqa", "llama3", "mistral", "qwen2_tied", "qwen3", "phi3", "pythia", "gpt_neox")
FULL = ("llama2_gqa", "qwen2_tied")
CURVE = "llama2_gqa"
PAD, VOCABULARY = 0, 96
MARGINS, CENTER = (0.5, 0.0, 1.25), 0.1
STEPS, PAIRS, PAIRS_OF_A_STEP = 30, 12, 4
TRAINING = {"learning_rate": 2e-3, "lr_scheduler_type": "linear", "warmup_steps": 3, "weight_decay": 0.01, "max_grad_norm": 1.0}


def random_pairs(seed: int, count: int) -> list[dict]:
    """Pairs in tokens: prompt, chosen, rejected, margin. Chosen answers hold more high tokens, so that there is something to learn."""
    random = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> list[int]:
        return random.integers(low, high, random.integers(2, 14)).tolist()

    pairs = [{"prompt": tokens(3, VOCABULARY), "chosen": tokens(40, VOCABULARY), "rejected": tokens(3, 60)} for _ in range(count)]
    return [{**pair, "margin": [0.0, 0.25, 1.0][number % 3]} for number, pair in enumerate(pairs)]


def reward_model(folder: Path, seed: int) -> torch.nn.Module:
    """The checkpoint with a new score head, in float32."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32, attn_implementation="eager")
    model.config.pad_token_id = PAD
    head = np.random.default_rng(seed).standard_normal((1, model.config.hidden_size)) / np.sqrt(model.config.hidden_size)
    with torch.no_grad():
        model.score.weight.copy_(torch.from_numpy(head))
    return model.eval()


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of tokens as one batch, padded on the right, and its mask."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    return ids, (ids != PAD).long()


def golden(model: torch.nn.Module, with_gradients: bool) -> dict[str, np.ndarray]:
    """Rewards and loss of three pairs; chosen and rejected answers in turn."""
    pairs = random_pairs(3, 3)
    rows = [pair["prompt"] + pair[side] for pair in pairs for side in ("chosen", "rejected")]
    ids, mask = padded(rows)
    rewards = model(ids, attention_mask=mask).logits[:, 0]
    chosen, rejected = rewards[0::2], rewards[1::2]
    loss = -torch.nn.functional.logsigmoid(chosen - rejected - torch.tensor(MARGINS)).mean() + CENTER * ((chosen + rejected) ** 2).mean()
    loss.backward()
    found = {"rewards": rewards.detach().numpy(), "loss": loss.detach().numpy(), "score.weight": model.score.weight.detach().numpy()}
    found["names"] = np.array([name for name, _ in model.named_parameters()])
    if with_gradients:
        found |= {f"gradient {name}": parameter.grad.numpy() for name, parameter in model.named_parameters()}
    return found


class Trainer(trl.RewardTrainer):
    """TRL's, with the rows in their order and every loss kept as it is computed."""

    def _get_train_sampler(self, dataset: Dataset | None = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset if dataset is None else dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> Any:
        """TRL's loss."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return (loss, outputs) if return_outputs else loss


def curve(folder: Path) -> dict:
    """The rows, and losses, accuracies, margins, mean rewards and gradient norms of each step of TRL's RewardTrainer."""
    pairs = random_pairs(5, PAIRS)
    columns = {f"{side}_ids": [pair["prompt"] + pair[side] for pair in pairs] for side in ("chosen", "rejected")}
    dataset = Dataset.from_dict({**columns, "margin": [pair["margin"] for pair in pairs]})
    vocabulary = {"<pad>": PAD, "<s>": 1, "</s>": 2, **{f"t{index}": index for index in range(3, VOCABULARY)}}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary)), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    with tempfile.TemporaryDirectory() as scratch:
        settings = trl.RewardConfig(
            output_dir=scratch, per_device_train_batch_size=PAIRS_OF_A_STEP, max_steps=STEPS, center_rewards_coefficient=CENTER,
            gradient_checkpointing=False, bf16=False, use_cpu=True, logging_steps=1, save_strategy="no", report_to=[], **TRAINING,
        )  # fmt: skip
        trainer = Trainer(reward_model(folder, 4), settings, train_dataset=dataset, processing_class=tokenizer)
        trainer.train()
    lines = [line for line in trainer.state.log_history if "grad_norm" in line]
    logged = {name: [line[name] for line in lines] for name in ("accuracy", "margin", "mean_reward", "grad_norm")}
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    start = {"checkpoint": CURVE, "head seed": 4, "pairs of a step": PAIRS_OF_A_STEP, "center_rewards_coefficient": CENTER, **TRAINING}
    return {"versions": versions, "start": start, "pairs": pairs, "loss": trainer.losses, **logged}


def write(folder: Path) -> None:
    """Write all."""
    target = folder / "reward"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    found: dict[str, np.ndarray] = {}
    for seed, name in enumerate(CHECKPOINTS):
        model = reward_model(folder / name, seed)
        found |= {f"{name} {key}": array for key, array in golden(model, name in FULL).items()}
        with tempfile.TemporaryDirectory() as scratch:
            model.save_pretrained(scratch)
            (target / name).mkdir()
            for path in Path(scratch).iterdir():
                if path.name == "config.json" or (name in FULL and path.suffix == ".safetensors"):
                    shutil.copyfile(path, target / name / path.name)
    np.savez_compressed(target / "rewards.npz", **found)
    (target / "curve.json").write_text(json.dumps(curve(folder / CURVE)) + "\n")


def read(folder: Path, scores: Path) -> None:
    """Print the largest difference between transformers' rewards and ours, over the pairs of a file that evaluate.py rewards wrote."""
    rows = [json.loads(line) for line in scores.read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    wrong = [key for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[kind]]
    worst = 0.0
    with torch.no_grad():
        for row in rows:
            turns = [
                [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")
            ]
            texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in turns]
            rewards = model(**tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")).logits[:, 0]
            worst = max(worst, *(abs(float(it) - row[f"{side}_score"]) for it, side in zip(rewards, ("chosen", "rejected"), strict=True)))
    labels, kind = model.config.num_labels, type(model).__name__
    print(f"transformers {transformers.__version__}: {kind}, num_labels {labels}, wrong keys: {wrong or 'none'}, pad {tokenizer.pad_token}")
    print(f"{len(rows)} pairs: rewards differ by {worst:.1e} at most")


if __name__ == "__main__":
    if "--read" in sys.argv:
        read(Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        write(Path(sys.argv[1]))
