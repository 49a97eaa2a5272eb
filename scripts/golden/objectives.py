"""What TRL and eric-mitchell's reference implementation say of preference losses: tests/parity/golden/objectives.json.

    git clone https://github.com/eric-mitchell/direct-preference-optimization
    python -m venv peers && peers/bin/pip install torch==2.13.0 trl==1.16.0 transformers
    peers/bin/python scripts/golden/objectives.py direct-preference-optimization/trainers.py tests/parity/golden/objectives.json

TRL's losses stand in its trainers' ``_compute_loss``; they are run as they are, on a trainer without a model whose answers' log-probs are
given. Everything is computed in float64, but for alpha divergences, which TRL knows in float32 only. A case has the settings under the
names that are used here, the loss as TRL means it (a mean over the pairs), and its gradient with respect to every token's log-prob.
"""

import ast
import json
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
import trl
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

LENGTHS = [[3, 5], [6, 2], [4, 4], [1, 7], [5, 3]]  # chosen and rejected answer of five pairs
PROMPT = 2
# name -> losses with weights, numbers, and what else is set; TRL's names are the same.
CASES: dict[str, tuple[dict[str, float], dict[str, Any], dict[str, Any]]] = {
    "sigmoid": ({"sigmoid": 1.0}, {"beta": 0.3}, {}),
    "sigmoid_norm": ({"sigmoid_norm": 1.0}, {"beta": 2.0}, {}),
    "robust": ({"robust": 1.0}, {"beta": 0.3, "label_smoothing": 0.2}, {}),
    "hinge": ({"hinge": 1.0}, {"beta": 0.3}, {}),
    "ipo": ({"ipo": 1.0}, {"beta": 0.4, "ipo_average": "token"}, {}),
    "exo_pair": ({"exo_pair": 1.0}, {"beta": 0.3, "label_smoothing": 0.01}, {}),
    "discopop": ({"discopop": 1.0}, {"beta": 0.3, "discopop_tau": 0.05}, {}),
    "nca_pair": ({"nca_pair": 1.0}, {"beta": 0.3}, {}),
    "sppo_hard": ({"sppo_hard": 1.0}, {"beta": 0.4}, {}),
    "apo_zero": ({"apo_zero": 1.0}, {"beta": 0.3}, {}),
    "apo_down": ({"apo_down": 1.0}, {"beta": 0.3}, {}),
    "bco_pair without delta": ({"bco_pair": 1.0}, {"beta": 0.3}, {}),
    "aot": ({"aot": 1.0}, {"beta": 0.3, "label_smoothing": 0.1}, {}),
    "aot_unpaired": ({"aot_unpaired": 1.0}, {"beta": 0.3, "label_smoothing": 0.1}, {}),
    "sft": ({"sft": 1.0}, {}, {}),
    "sigmoid, sft": ({"sigmoid": 0.7, "sft": 1.5}, {"beta": 0.3}, {}),
    "sigmoid, nca_pair, sft": ({"sigmoid": 0.8, "nca_pair": 0.2, "sft": 1.0}, {"beta": 0.3}, {}),
    "sigmoid ld_alpha": ({"sigmoid": 1.0}, {"beta": 0.3}, {"ld_alpha": 0.4}),
    "ipo ld_alpha": ({"ipo": 1.0}, {"beta": 0.4}, {"ld_alpha": 0.4}),
    "sigmoid use_weighting": ({"sigmoid": 1.0}, {"beta": 0.3}, {"use_weighting": True}),
    "ipo, nca_pair use_weighting": ({"ipo": 0.5, "nca_pair": 1.0}, {"beta": 0.4}, {"use_weighting": True}),
    "sigmoid forward_kl": ({"sigmoid": 1.0}, {"beta": 0.3, "f_divergence_type": "forward_kl"}, {}),
    "hinge js_divergence": ({"hinge": 1.0}, {"beta": 0.3, "f_divergence_type": "js_divergence"}, {}),
    "sigmoid alpha_divergence": (
        {"sigmoid": 1.0}, {"beta": 0.3, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5}, {},
    ),
}  # fmt: skip
WITHOUT_REFERENCE: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    "cpo": ({"cpo": 1.0}, {"beta": 0.3}),
    "cpo label_smoothing": ({"cpo": 1.0}, {"beta": 0.3, "label_smoothing": 0.2}),
    "simpo": ({"simpo": 1.0}, {"beta": 2.0, "simpo_gamma": 0.7}),
    "simpo label_smoothing": ({"simpo": 1.0}, {"beta": 2.0, "simpo_gamma": 0.7, "label_smoothing": 0.2}),
    "orpo": ({"orpo": 0.3}, {}),
}
KTO: dict[str, dict[str, float]] = {
    "kto": {"beta": 0.3, "desirable_weight": 1.0, "undesirable_weight": 1.0},
    "kto weights": {"beta": 0.5, "desirable_weight": 1.5, "undesirable_weight": 0.7},
}
LABELS = [True, False, True, True, False]
ERIC: dict[str, dict[str, Any]] = {
    "sigmoid": {"beta": 0.2},
    "conservative": {"beta": 0.2, "label_smoothing": 0.15},
    "ipo": {"beta": 0.2, "ipo": True},
    "reference_free": {"beta": 0.2, "reference_free": True},
}


def draw() -> tuple[list[list[list[float]]], list[list[float]]]:
    """Log-probs of every token [pair][side][token], and of the answers under the reference [pair][side]; each a float32."""
    generator = torch.Generator().manual_seed(0)
    tokens = [[(-3.0 * torch.rand(n, generator=generator) - 0.01).tolist() for n in pair] for pair in LENGTHS]
    noise = 4.0 * torch.rand(len(LENGTHS), 2, generator=generator) - 2.0
    reference = [
        [float(torch.tensor(sum(side) + float(noise[i, j]), dtype=torch.float32)) for j, side in enumerate(pair)]
        for i, pair in enumerate(tokens)
    ]
    return tokens, reference


def laid_out(tokens: list[list[list[float]]], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """TRL's batch: chosen answers, then rejected ones, behind prompts: log-probs and mask [2 pairs, length]."""
    sides = [pair[side] for side in (0, 1) for pair in tokens]
    width = PROMPT + max(map(len, sides))
    logps, mask = torch.zeros(len(sides), width, dtype=dtype), torch.zeros(len(sides), width, dtype=torch.long)
    for row, side in enumerate(sides):
        logps[row, PROMPT : PROMPT + len(side)] = torch.tensor(side, dtype=dtype)
        mask[row, PROMPT : PROMPT + len(side)] = 1
    return logps, mask


def back(gradient: torch.Tensor) -> list[list[list[float]]]:
    """A gradient [2 pairs, length] in the shape of the tokens."""
    pairs = len(LENGTHS)
    return [[gradient[i + side * pairs, PROMPT : PROMPT + n].tolist() for side, n in enumerate(LENGTHS[i])] for i in range(pairs)]


def collisions(logps: torch.Tensor) -> torch.Tensor:
    """Some log-probabilities that two drawn tokens are the same; any numbers do."""
    return 0.6 * logps - 0.2


def dpo_case(
    tokens: list[list[list[float]]], reference: list[list[float]], weights: dict[str, float], numbers: dict[str, Any], more: dict[str, Any]
) -> dict[str, Any]:
    """DPOTrainer's loss and gradient."""
    dtype = torch.float32 if numbers.get("f_divergence_type") == "alpha_divergence" else torch.float64
    logps, mask = laid_out(tokens, dtype)
    logps.requires_grad_(True)
    shifted = logps[:, 1:]
    rows = {name: torch.zeros_like(shifted) for name in ("entropy", "mean_logits")}
    rows["log_sum_sq_probs"] = collisions(shifted.detach())
    outputs = SimpleNamespace(log_probs=shifted, is_top1=torch.zeros_like(shifted, dtype=torch.bool), **rows)
    ref = torch.tensor(reference, dtype=dtype)
    same = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=same, aux_loss_enabled=False, precompute_ref_logps=True,
        use_weighting=more.get("use_weighting", False),
        ld_alpha=more.get("ld_alpha"), f_divergence_type=numbers.get("f_divergence_type", "reverse_kl"),
        f_alpha_divergence_coef=numbers.get("f_alpha_divergence_coef", 0.5), loss_types=list(weights), loss_weights=list(weights.values()),
        beta=numbers.get("beta", 0.1), label_smoothing=numbers.get("label_smoothing", 0.0),
        args=SimpleNamespace(discopop_tau=numbers.get("discopop_tau", 0.05)), _metrics={"train": defaultdict(list)},
        _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    inputs = {
        "input_ids": torch.zeros_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask,
        "ref_chosen_logps": ref[:, 0], "ref_rejected_logps": ref[:, 1],
    }  # fmt: skip

    def answered(input_ids: Any, attention_mask: Any, use_cache: bool, labels: Any, fused_lm_head: bool) -> SimpleNamespace:
        return outputs

    loss = DPOTrainer._compute_loss(trainer, answered, inputs, False)
    loss.backward()
    return {"weights": weights, "numbers": numbers, **more, "loss": float(loss), "gradient": back(logps.grad)}


def policy_case(tokens: list[list[list[float]]], name: str, weights: dict[str, float], numbers: dict[str, Any]) -> dict[str, Any]:
    """CPOTrainer's or ORPOTrainer's loss without its cross-entropy."""
    logps, mask = laid_out(tokens, torch.float32 if name == "orpo" else torch.float64)  # TRL takes orpo's in float32
    logps.requires_grad_(True)
    sums = logps.sum(1)
    means = sums / mask.sum(1)
    kind = next(iter(weights))
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device=torch.device("cpu")), alpha=0.0, loss_type="simpo" if kind == "simpo" else "sigmoid",
        beta=numbers.get("beta", weights[kind]), label_smoothing=numbers.get("label_smoothing", 0.0),
        simpo_gamma=numbers.get("simpo_gamma", 0.5),
    )  # fmt: skip
    if kind == "orpo":
        loss = -ORPOTrainer.odds_ratio_loss(trainer, *means.chunk(2))[0].mean()
    else:
        loss = CPOTrainer.cpo_loss(trainer, *(means if kind == "simpo" else sums).chunk(2))[0].mean()
    loss.backward()
    return {"weights": weights, "numbers": numbers, "loss": float(loss), "gradient": back(logps.grad)}


def kto_case(tokens: list[list[list[float]]], reference: list[list[float]], numbers: dict[str, float]) -> dict[str, Any]:
    """KTOTrainer's loss and gradient: of each pair one answer is the row's own, the other one that of another prompt."""
    logps, mask = laid_out(tokens, torch.float64)
    logps.requires_grad_(True)
    rows = len(LABELS)
    own, ref = logps[:rows, 1:], torch.tensor(reference, dtype=torch.float64)
    shape = {name: torch.zeros_like(own) for name in ("entropy", "mean_logits")}
    same = SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=same, aux_loss_enabled=False, precompute_ref_logps=True, calculate_KL=True,
        loss_type="kto", _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
        _compute_kl_logps=lambda model, batch: logps[rows:].sum(1).detach(), **numbers,
    )  # fmt: skip
    inputs = {
        "input_ids": torch.zeros_like(mask[:rows]), "attention_mask": torch.ones_like(mask[:rows]), "completion_mask": mask[:rows],
        "label": torch.tensor(LABELS), "ref_logps": ref[:, 0], "ref_KL_logps": ref[:, 1],
    }  # fmt: skip

    def answered(input_ids: Any, attention_mask: Any, use_cache: bool, labels: Any, fused_lm_head: bool) -> SimpleNamespace:
        return SimpleNamespace(log_probs=own, **shape)

    loss = KTOTrainer._compute_loss(trainer, answered, inputs, False)
    loss.backward()
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    told = {
        name: metrics[name] for name in ("kl", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected")
    }
    return {"numbers": numbers, "labels": LABELS, "loss": float(loss), "gradient": back(logps.grad), "metrics": told}


def eric_cases(path: Path, tokens: list[list[list[float]]], reference: list[list[float]]) -> dict[str, Any]:
    """What ``preference_loss`` of that file gives: the loss of each pair, and the rewards. Nothing else of the file is run."""
    tree = ast.parse(path.read_text("utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "preference_loss"]
    names: dict[str, Any] = {"torch": torch, "F": torch.nn.functional, "Tuple": tuple}
    exec(compile(tree, str(path), "exec"), names)  # noqa: S102
    policy = torch.tensor([[sum(side) for side in pair] for pair in tokens], dtype=torch.float64)
    ref = torch.tensor(reference, dtype=torch.float64)
    found = {}
    for name, keys in ERIC.items():
        losses, chosen, rejected = names["preference_loss"](policy[:, 0], policy[:, 1], ref[:, 0], ref[:, 1], **keys)
        found[name] = {"keys": keys, "losses": losses.tolist(), "chosen": chosen.tolist(), "rejected": rejected.tolist()}
    return found


def main(eric: Path, output: Path) -> None:
    """Run every case and write the file."""
    tokens, reference = draw()
    cases = {name: dpo_case(tokens, reference, *case) for name, case in CASES.items()}
    cases |= {name: policy_case(tokens, name, *case) for name, case in WITHOUT_REFERENCE.items()}
    made = {"made with": {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}}
    kto = {name: kto_case(tokens, reference, numbers) for name, numbers in KTO.items()}
    found = {
        **made,
        "tokens": tokens,
        "reference": reference,
        "trl": cases,
        "trl kto": kto,
        "eric-mitchell": eric_cases(eric, tokens, reference),
    }
    output.write_text(json.dumps(found) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
