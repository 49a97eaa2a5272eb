"""The keys of low-rank adapters (LoRA), and what follows from them. Names and defaults are PaddleNLP's, and peft's where it has none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from paddlealign.arguments.declare import key as _key

# What rslora_plus stands for in PaddleNLP.
RSLORA_PLUS = {"rslora": True, "lora_plus_scale": 4.0, "lora_alpha": 4.0}


@dataclass(frozen=True)
class AdapterArguments:
    """An adapter beside the model (predict, evaluate.py rewards, perplexity and compare, export)."""

    _argument_group_name = "adapter"

    lora_path: Optional[str] = _key(
        "Folder of a LoRA adapter (adapter_config.json, adapter_model.safetensors) that was trained beside model_name_or_path. Export "
        "merges it into the weights; the other commands compute with it.",
        None,
        metavar="DIR",
    )


@dataclass(frozen=True)
class LoraArguments:
    """Low-rank adapters instead of all weights (sft, reward, dpo)."""

    _argument_group_name = "adapter"

    lora: bool = _key(
        "Train a LoRA adapter beside the layers' linear weights, which stay as they are; the adapter is what is saved, and of a reward "
        "model its head.",
        False,
    )
    lora_path: Optional[str] = _key(
        "Folder of the adapter that training starts from; its rank, alpha and modules are kept. Unset: a new one, which changes nothing at "
        "first.",
        None,
        metavar="DIR",
    )
    lora_rank: int = _key("Rank of a new adapter: columns of its first matrix, rows of its second.", 8, metavar="N")
    lora_alpha: float = _key(
        "A new adapter's output is multiplied by lora_alpha / lora_rank, or by lora_alpha / sqrt(lora_rank) under rslora; -1: twice "
        "lora_rank, and 4 under rslora.",
        -1,
        metavar="NUMBER",
    )
    lora_dropout: float = _key(
        "Share of its inputs that an adapter does not see in a training step, 0 up to below 1.", 0.0, metavar="SHARE"
    )
    lora_target_modules: Optional[list[str]] = _key(
        "Linear modules of every layer that get an adapter: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj (a list, or "
        "commas), or all-linear for all; unset: all-linear.",
        None,
        metavar="MODULE",
    )
    rslora: bool = _key("Divide lora_alpha by the rank's square root, which keeps a large rank's updates large (rsLoRA).", False)
    lora_plus_scale: float = _key(
        "Learning rate of an adapter's second matrix, as a multiple of the first's (LoRA+).", 1.0, metavar="FACTOR"
    )
    rslora_plus: bool = _key("Short for rslora true, lora_plus_scale 4 and lora_alpha 4.", False)


def resolve_lora(lora: LoraArguments, sources: Mapping[str, str]) -> tuple[list[str], dict[str, Any]]:
    """Problems, and values that follow from others."""
    problems: list[str] = []
    changes: dict[str, Any] = {}
    if not lora.lora:
        if lora.lora_path:
            problems.append("lora_path without lora: an adapter is trained on only with lora true. Set it, or merge the adapter by export.")
        return problems, changes
    if lora.lora_path:
        if lora.rslora_plus:
            problems.append("rslora_plus with lora_path: the adapter has its own rslora and lora_alpha. Set lora_plus_scale 4 instead.")
        return problems, changes
    if lora.rslora_plus:
        given = [key for key in RSLORA_PLUS if sources.get(key, "default") != "default" and getattr(lora, key) != RSLORA_PLUS[key]]
        if given:
            problems.append(f"rslora_plus sets {', '.join(RSLORA_PLUS)}, and {', '.join(given)} is set otherwise. Keep one of them.")
        changes |= {key: value for key, value in RSLORA_PLUS.items() if getattr(lora, key) != value}
    elif lora.lora_alpha == -1:
        changes["lora_alpha"] = 4.0 if lora.rslora else 2.0 * lora.lora_rank
    elif lora.lora_alpha <= 0:
        problems.append(f"lora_alpha {lora.lora_alpha:g} is not allowed; allowed: above 0, or -1.")
    if not lora.lora_target_modules:
        changes["lora_target_modules"] = ["all-linear"]
    return problems, changes


def unread_lora_keys(lora: LoraArguments) -> list[tuple[bool, str, str]]:
    """Keys that another one makes void: (whether it does, the key, why)."""
    keys = ("lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules", "rslora", "lora_plus_scale", "rslora_plus")
    return [(not lora.lora, key, "lora is false") for key in keys]
