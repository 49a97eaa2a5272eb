"""Tiny runs that several test files share: a golden LLaMA of two layers, rows of random tokens, a few optimizer steps."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from paddlealign.data.example import Batch, Example, Response
from paddlealign.data.packing import make_batch
from paddlealign.models.decoder import Decoder
from paddlealign.objectives.pairs import Coefficients
from paddlealign.training.objective import Objective, Reference, preference_objective, sft_objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.precision import Precision
from paddlealign.training.step import accumulate_gradients, apply_gradients

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "parity" / "golden"
MODEL = GOLDEN / "llama2_gqa"
FLOAT32 = Precision("float32", "O1", None)
SPECIAL = ["<unk>", "<s>", "</s>"]
CHARACTERS = [chr(code) for code in range(32, 32 + 96 - len(SPECIAL))]


def examples(responses: int, count: int = 6) -> list[Example]:
    """Examples of random tokens and uneven lengths, each with so many responses."""
    rng = np.random.default_rng(0)

    def tokens(low: int, high: int) -> np.ndarray:
        return rng.integers(3, 96, rng.integers(low, high)).astype("int32")

    def response() -> Response:
        ids = tokens(3, 20)
        return Response(ids, np.ones(len(ids), bool))

    return [Example(tokens(2, 20), tuple(response() for _ in range(responses))) for _ in range(count)]


def micro_batches(responses: int = 1) -> list[Batch]:
    return [make_batch(examples(responses), rows, 0) for rows in ([[0, 1]], [[2], [3]], [[4, 5]])]


def dpo_objective(reference: Reference, beta: float, label_smoothing: float) -> Objective:
    """DPO's own loss."""
    return preference_objective(reference, {"sigmoid": 1.0}, Coefficients(beta=beta, label_smoothing=label_smoothing))


def optimizer_of(model: Decoder) -> paddle.optimizer.AdamW:
    return make_optimizer(list(model.named_parameters()), 0.9, 0.99, 1e-8, 0.01)


def train(model: Decoder, optimizer: paddle.optimizer.AdamW, precision: Precision, steps: int, recompute: bool = False) -> list[float]:
    """SFT steps on the same six rows. Returns their losses."""
    losses = []
    for _ in range(steps):
        losses.append(accumulate_gradients(model, micro_batches(), sft_objective(), precision, recompute).means()["loss"])
        apply_gradients(model, optimizer, precision, 5e-3, 1.0)
    return losses


def gradients_of(model: Decoder) -> dict[str, np.ndarray]:
    return {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}


def make_checkpoint(folder: Path, seed: int = 0) -> Path:
    """A LLaMA of two layers with random weights and a tokenizer of 1,000 pieces, made by the scripts that make the sample's."""
    words = {
        "make_tokenizer": ["--pieces", "1000", "--texts", "1500"],
        "make_model": ["--hidden", "32", "--layers", "2", "--seed", str(seed)],
    }
    for script, options in words.items():
        command = [sys.executable, "-m", f"scripts.sample.{script}", "--output", str(folder), *options]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    return folder


def write_rows(path: Path, kind: str, split: str, start: int, count: int) -> Path:
    """Rows ``start`` to ``start + count - 1`` of the sample's data. kind: "sft" or "dpo"."""
    lines = (ROOT / "data" / kind / f"{split}.json").read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[start : start + count]) + "\n", encoding="utf-8")
    return path


def character_checkpoint(folder: Path) -> Path:
    """The golden LLaMA with a tokenizer whose tokens are the printable characters."""
    shutil.copytree(GOLDEN / "llama1", folder)
    vocabulary = {token: index for index, token in enumerate(SPECIAL + CHARACTERS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def character_rows(path: Path) -> Path:
    """Twenty rows for prediction, of every form and of many lengths, in the characters of ``character_checkpoint``."""
    rows: list[dict] = []
    for index in range(20):
        text = "".join(CHARACTERS[1 + (7 * index + 3 * place) % 90] for place in range(1 + 5 * index % 23))
        if index % 3 == 0:
            rows.append({"src": text, "tgt": "reference é"})
        elif index % 3 == 1:
            rows.append({"prompt": text, "number": index})
        else:
            rows.append({"messages": [{"role": "user", "content": text}]})
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
