"""Which keys a preference loss reads, needs and refuses. Pure functions of the filled dataclass."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from paddlealign.arguments.losses import LOSS_ALIASES, LOSSES, UNPAIRED_LOSSES, WITH_SFT, Loss
from paddlealign.arguments.objective_fields import ObjectiveArguments

_EVERY = {**LOSSES, **UNPAIRED_LOSSES}
_MOVING_KEYS = ("ref_model_mixup_alpha", "ref_model_sync_steps")
_REFERENCE_KEYS = (
    "ref_model_name_or_path", "ref_lora_path", "reference_dtype", "reference_mode", "reference_cache_dir", "sync_ref_model", *_MOVING_KEYS,
)  # fmt: skip


class ObjectiveFound(NamedTuple):
    """See ``checks.Resolved``."""

    problems: list[str]
    changes: dict[str, Any]
    notes: list[str]


def loss_names(objective: ObjectiveArguments) -> list[str]:
    """The losses in loss_type under their own names, those without a name of their own as they stand."""
    given = [name.strip() for name in objective.loss_type.split(",") if name.strip()]
    return [LOSS_ALIASES.get(name, name) for name in given]


def loss_mixture(objective: ObjectiveArguments) -> dict[str, float]:
    """What each loss counts in the sum: loss_weights times pref_loss_ratio, and sft_loss_ratio for sft. Those that count 0 are left out."""
    names = loss_names(objective)
    given = [float(weight) for weight in objective.loss_weights.split(",")] if objective.loss_weights else [1.0] * len(names)
    mixture = {name: weight * (1.0 if name == "sft" else objective.pref_loss_ratio) for name, weight in zip(names, given, strict=True)}
    if objective.sft_loss_ratio:
        mixture["sft"] = mixture.get("sft", 0.0) + objective.sft_loss_ratio
    return {name: weight for name, weight in mixture.items() if weight}


def resolve_objective(objective: ObjectiveArguments, sources: Mapping[str, str]) -> ObjectiveFound:
    """Names and weights of the losses, and what follows from them for sft_loss_ratio and reference_free."""
    found = ObjectiveFound([], {}, [])
    names = loss_names(objective)
    unknown = [name for name in names if name not in _EVERY]
    if unknown or not names:
        near = [match for name in unknown for match in difflib.get_close_matches(name, _EVERY, n=1)]
        meant = f" (is {', '.join(near)} meant?)" if near else ""
        what = f"unknown: {', '.join(unknown)}{meant}" if unknown else "it names no loss"
        found.problems.append(f"loss_type {objective.loss_type}: {what}. Allowed, one or several with commas: {', '.join(LOSSES)}; or kto.")
        return found
    if len(set(names)) < len(names):
        found.problems.append(f"loss_type {objective.loss_type}: a loss stands in it twice. Name it once and set loss_weights.")
    told = ",".join(names)
    if told != objective.loss_type:
        found.changes["loss_type"] = told
        renamed = [f"{old} is {new}" for old, new in LOSS_ALIASES.items() if old in objective.loss_type.replace(" ", "").split(",")]
        found.notes.extend([f"loss_type is read as {told}: {', '.join(renamed)}."] if renamed else [])
    found.problems.extend(_weight_problems(objective, len(names)))
    if sources["sft_loss_ratio"] == "default" and "sft" not in names and any(name in WITH_SFT for name in names):
        found.changes["sft_loss_ratio"] = 1.0
        found.notes.append(f"sft_loss_ratio is not set: 1, as the paper of {' and '.join(n for n in names if n in WITH_SFT)} has it.")
    if found.problems:
        return found
    if any(name in UNPAIRED_LOSSES for name in names):
        found.problems.extend(_unpaired_problems(objective, names) + _reference_problems(objective))
        return found
    rules = {name: LOSSES[name] for name in loss_mixture(replace(objective, **found.changes))}
    if not rules:
        found.problems.append("pref_loss_ratio and sft_loss_ratio leave nothing to train on: raise one of them above 0.")
    if not objective.reference_free and all(rule.compares == "policy" for rule in rules.values()):
        found.changes["reference_free"] = True
    found.problems.extend(_combination_problems(objective, rules) + _reference_problems(replace(objective, **found.changes)))
    if objective.f_divergence_type == "alpha_divergence":
        told = f"f_alpha_divergence_coef {objective.f_alpha_divergence_coef:g}: 1 is the reverse KL, 0 the forward KL, as in TRL since 1.0."
        found.notes.append(f"{told} Before that, and in the paper, it was the other way round (1 - alpha).")
    return found


def _reference_problems(objective: ObjectiveArguments) -> list[str]:
    if objective.sync_ref_model and objective.reference_mode == "cached" and not objective.reference_free:
        return ["sync_ref_model: cached log-probabilities are those of a reference that stays as it is. Set reference_mode to frozen."]
    return []


def _weight_problems(objective: ObjectiveArguments, losses: int) -> list[str]:
    if objective.loss_weights is None:
        return []
    try:
        weights = [float(weight) for weight in objective.loss_weights.split(",")]
    except ValueError:
        weights = []
    if not weights or not all(0 < weight < math.inf for weight in weights):
        return [f"loss_weights {objective.loss_weights}: numbers above 0 are needed, one for each loss in loss_type, with commas."]
    if len(weights) != losses:
        counts = f"{len(weights)} numbers, and loss_type has {losses} losses"
        return [f"loss_weights {objective.loss_weights}: {counts}; one for each is needed."]
    return []


def _unpaired_problems(objective: ObjectiveArguments, names: list[str]) -> list[str]:
    """What a loss over labelled rows cannot have."""
    name = next(name for name in names if name in UNPAIRED_LOSSES)
    asked = {
        "loss_type": len(names) > 1,
        "loss_weights": objective.loss_weights is not None,
        "pref_loss_ratio": objective.pref_loss_ratio != 1.0,
        "sft_loss_ratio": objective.sft_loss_ratio != 0.0,
        "ld_alpha": objective.ld_alpha != 1.0,
        "use_weighting": objective.use_weighting,
        "f_divergence_type": objective.f_divergence_type != "reverse_kl",
        "reference_free": objective.reference_free,
    }
    keys = [key for key, wrong in asked.items() if wrong]
    return [f"{', '.join(keys)}: {name} trains on labelled rows, not pairs, and stands alone. Leave it out."] if keys else []


def _combination_problems(objective: ObjectiveArguments, rules: Mapping[str, Loss]) -> list[str]:
    problems = []
    alone = [name for name, rule in rules.items() if rule.compares == "ratios"]
    if objective.reference_free and alone:
        problems.append(
            f"reference_free: {', '.join(alone)} looks at each answer's ratio to the reference by itself and means nothing without one. "
            f"Take {', '.join(name for name, rule in LOSSES.items() if rule.compares != 'ratios')}."
        )
    other = objective.f_divergence_type != "reverse_kl"
    if other and alone:
        problems.append(
            f"f_divergence_type {objective.f_divergence_type}: {', '.join(alone)} is not made for it. "
            f"Take {', '.join(name for name, rule in LOSSES.items() if rule.compares == 'difference')}, or reverse_kl."
        )
    if other and objective.reference_free:
        problems.append(f"f_divergence_type {objective.f_divergence_type} and reference_free: without a reference there is no divergence.")
    ranked = [name for name in rules if name.startswith("aot")]
    if objective.use_weighting and ranked:
        problems.append(f"use_weighting: {', '.join(ranked)} pairs answers by rank, so that a pair has no weight of its own. Leave it out.")
    if objective.use_weighting and all(name.startswith("sft") for name in rules):
        problems.append("use_weighting weighs pairs, and there is no loss over pairs: leave it out, or name one in loss_type.")
    if "exo_pair" in rules and objective.label_smoothing == 0.0:
        problems.append("label_smoothing 0: exo_pair takes the logarithm of it; set it above 0. Its paper takes 1e-3.")
    return problems


def unread_objective_keys(objective: ObjectiveArguments) -> list[tuple[bool, str, str]]:
    """Rules for ``checks.unread_keys``: whether a key is not read, the key, and why."""
    mixture = loss_mixture(objective)
    rules = [_EVERY[name] for name in mixture]
    of_losses = dict.fromkeys(key for loss in _EVERY.values() for key in loss.reads)
    read = {key for rule in rules for key in rule.reads}
    why = f"loss_type is {objective.loss_type}"
    found = [(key not in read, key, f"{why}, whose weight is pref_loss_ratio" if "orpo" in mixture else why) for key in of_losses]
    has_reference = not objective.reference_free
    divergent = has_reference and any(rule.compares == "difference" for rule in rules)
    found.append((not divergent, "f_divergence_type", why))
    found.append((all(name.startswith("sft") for name in mixture), "ld_alpha", why))
    found.append((objective.f_divergence_type != "alpha_divergence", "f_alpha_divergence_coef", "f_divergence_type is another"))
    found.append((set(loss_names(objective)) == {"sft"}, "pref_loss_ratio", "loss_type is sft"))
    found += [(not has_reference, key, "the loss has no reference") for key in _REFERENCE_KEYS]
    found.append((has_reference and objective.reference_mode == "frozen", "reference_cache_dir", "reference_mode is frozen"))
    return found + [(has_reference and not objective.sync_ref_model, key, "sync_ref_model is false") for key in _MOVING_KEYS]
