"""Rotary embeddings: what config.json says about them, and the angles that follow."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddlealign.errors import UserError
from paddlealign.models.config_values import positive_int, positive_number, true_or_false

# For each type: the keys that it needs, and those that it may have.
TYPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ("original_max_position_embeddings",)),  # which transformers does not look at either
    "llama3": (("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"), ()),
    "yarn": (
        ("factor",),
        ("original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    ),
}


@dataclass(frozen=True)
class Rope:
    """How positions turn the heads.

    theta: the base. dim: how many of a head's elements are turned, from the first; even.
    kind: how the frequencies are stretched for longer texts: "default" (not at all), "linear" (all divided by ``factor``), "dynamic" (the
    base grows with the text's length, Peng and Quesnelle's NTK-aware form), "llama3" (only the slow ones, with a smooth passage between) or
    "yarn" (Peng et al. 2023: likewise, with a ramp over the pairs, and cosine and sine scaled by ``attention_factor``).
    original_positions: for how many positions the model was trained before it was stretched.
    """

    theta: float
    dim: int
    kind: str = "default"
    factor: float = 1.0
    original_positions: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0


def frequencies(rope: Rope, length: np.ndarray | int = 0) -> np.ndarray:
    """Angle by which each pair of a head turns per position: float32 [..., dim / 2].

    length: tokens of the text, int or int [..., 1]; only "dynamic" asks for it. Without scaling, pair i turns by theta^(-2 i / dim).
    Computed in float64 and rounded once.
    """
    exponents = -np.arange(0, rope.dim, 2, dtype=np.float64) / rope.dim
    if rope.kind == "dynamic":
        stretch = rope.factor * np.maximum(length, rope.original_positions) / rope.original_positions - (rope.factor - 1)
        return ((rope.theta * stretch ** (rope.dim / (rope.dim - 2))) ** exponents).astype(np.float32)
    plain = rope.theta**exponents
    if rope.kind == "default":
        kept = np.ones_like(plain)
    elif rope.kind == "linear":
        kept = np.zeros_like(plain)
    elif rope.kind == "llama3":
        # How often a pair turns within the original context decides how much of it is stretched.
        turns = rope.original_positions * plain / (2 * np.pi)
        kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    else:
        low, high = _yarn_ramp(rope)
        kept = 1 - (np.arange(rope.dim // 2) - low) / (high - low)
    kept = np.clip(kept, 0.0, 1.0)
    return (plain * (kept + (1 - kept) / rope.factor)).astype(np.float32)


def _yarn_ramp(rope: Rope) -> tuple[float, float]:
    """The pairs between which yarn passes from kept to stretched: those that turn beta_fast and beta_slow times in the original context."""

    def pair(turns: float) -> float:
        return rope.dim * math.log(rope.original_positions / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair(rope.beta_fast), pair(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    return low, high if high != low else high + 0.001


def text_lengths(position_ids: np.ndarray) -> np.ndarray:
    """For each token the length of the text that it stands in: int64 [rows, length, 1].

    position_ids: int64 [rows, length]; a new text begins at each 0. A row that begins in the middle of a text is one text from there.
    """
    rows, length = position_ids.shape
    flat = position_ids.reshape(-1)
    begins = (flat == 0) | (np.arange(flat.size) % length == 0)
    starts = np.flatnonzero(begins)
    longest = np.maximum.reduceat(flat, starts) + 1
    return longest[np.cumsum(begins) - 1].reshape(rows, length, 1)


def read_rope(
    source: Mapping[str, Any], head_dim: int, max_positions: int, where: str, share: float | None, types: tuple[str, ...]
) -> Rope:
    """The rotary embedding, from rope_parameters (transformers 5) or rope_scaling and the keys at the top level (transformers 4).

    share: the family's default for the share of a head that is turned; None where it is always all of it. types: those that it may have.
    """
    key, parameters = _parameters(source, where)
    where_rope = f"{where}, {key}"
    theta = _told_once(source, ("rope_theta", "rotary_emb_base"), parameters, 10000.0, where, key)
    turned = _told_once(source, ("partial_rotary_factor", "rotary_pct"), parameters, 1.0 if share is None else share, where, key)
    if turned != 1 and share is None:
        raise UserError(f"{where}: partial_rotary_factor is {turned}; for this model_type only 1.0 is supported.")
    dim = int(head_dim * turned)
    if dim % 2 or not 0 < dim <= head_dim:
        raise UserError(f"{where}: {turned} of the head_dim {head_dim} is {dim}; rotary embeddings turn pairs, so 2 to {head_dim}, even.")
    kind = _kind(parameters, types, where_rope)
    needed, _ = TYPES[kind]
    for name in needed:
        if parameters.get(name) is None:
            raise UserError(f"{where_rope}: the key {name} is missing; the type {kind!r} needs it.")
    if kind == "default":
        return Rope(theta, dim)
    factor = positive_number(parameters, "factor", 1.0, where_rope)
    if kind == "linear":
        return Rope(theta, dim, "linear", factor)
    if kind == "dynamic":
        if factor < 1 or dim == 2:
            raise UserError(f"{where_rope}: the type 'dynamic' needs a factor of 1 or more (it is {factor}) and more than one pair.")
        return Rope(theta, dim, "dynamic", factor, max_positions)
    original = positive_int(parameters, "original_max_position_embeddings", max_positions, where_rope)
    if kind == "llama3":
        low = positive_number(parameters, "low_freq_factor", 1.0, where_rope)
        high = positive_number(parameters, "high_freq_factor", 4.0, where_rope)
        if high <= low:
            raise UserError(f"{where_rope}: high_freq_factor {high} must be greater than low_freq_factor {low}.")
        return Rope(theta, dim, "llama3", factor, original, low, high)
    fast = positive_number(parameters, "beta_fast", 32.0, where_rope)
    slow = positive_number(parameters, "beta_slow", 1.0, where_rope)
    if fast <= slow or factor < 1 or theta <= 1:
        raise UserError(
            f"{where_rope}: the type 'yarn' needs beta_fast above beta_slow (they are {fast} and {slow}), a factor of 1 or more (it is "
            f"{factor}) and a rope_theta above 1 (it is {theta})."
        )
    return Rope(
        theta,
        dim,
        "yarn",
        factor,
        original,
        beta_fast=fast,
        beta_slow=slow,
        truncate=true_or_false(parameters, "truncate", True, where_rope),
        attention_factor=_yarn_attention(parameters, factor, where_rope),
    )


def extended_positions(rope: Rope, max_positions: int) -> int:
    """How many positions the scaling makes of the ``max_position_embeddings`` of config.json."""
    if rope.kind in ("linear", "dynamic"):
        return int(max_positions * rope.factor)
    return max(max_positions, int(rope.original_positions * rope.factor)) if rope.kind == "yarn" else max_positions


def _parameters(source: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """The object that describes the rotary embedding, and under which key it stands."""
    old, new = source.get("rope_scaling"), source.get("rope_parameters")
    key = "rope_scaling" if new is None else "rope_parameters"
    parameters = old if new is None else new
    if parameters is not None and not isinstance(parameters, dict):
        raise UserError(f"{where}: {key} is {json.dumps(parameters)}; an object or null was expected.")
    if new is not None and old is not None and old != new:
        raise UserError(f"{where}: rope_parameters and rope_scaling differ; keep one of them.")
    return key, dict(parameters or {})


def _told_once(
    source: Mapping[str, Any], names: tuple[str, ...], parameters: Mapping[str, Any], default: float, where: str, key: str
) -> float:
    """A number that may stand at the top level by several names, in the rope's own object by the first, or in many places that agree."""
    told = {name: positive_number(source, name, default, where) for name in names if source.get(name) is not None}
    if parameters.get(names[0]) is not None:
        told[f"{key}.{names[0]}"] = positive_number(parameters, names[0], default, f"{where}, {key}")
    if len(set(told.values())) > 1:
        raise UserError(f"{where}: {' and '.join(f'{name} is {value}' for name, value in told.items())}; keep one of them.")
    return next(iter(told.values()), default)


def _kind(parameters: Mapping[str, Any], types: tuple[str, ...], where: str) -> str:
    """The type of scaling. Older files say "type", newer ones "rope_type", and some say both."""
    kinds = {str(parameters[name]) for name in ("type", "rope_type") if parameters.get(name) is not None}
    if len(kinds) > 1:
        raise UserError(f"{where}: type and rope_type differ ({parameters['type']}, {parameters['rope_type']}).")
    kind = kinds.pop() if kinds else "default"
    if kind not in types:
        raise UserError(f"{where}: the type {kind!r} is not supported. Supported: {', '.join(types)}.")
    allowed = {"type", "rope_type", "rope_theta", "partial_rotary_factor", *TYPES[kind][0], *TYPES[kind][1]}
    for name in parameters:
        if name not in allowed:
            raise UserError(f"{where}: the key {name} is not understood for the type {kind!r}.")
    return kind


def _yarn_attention(parameters: Mapping[str, Any], factor: float, where: str) -> float:
    """Yarn's factor on cosine and sine: as given, or 0.1 ln(factor) + 1 (Peng et al. 2023, equation 22), or a ratio of two such."""
    if parameters.get("attention_factor") is not None:
        return positive_number(parameters, "attention_factor", 1.0, where)

    def grown(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if parameters.get("mscale") and parameters.get("mscale_all_dim"):
        return grown(positive_number(parameters, "mscale", 1.0, where)) / grown(positive_number(parameters, "mscale_all_dim", 1.0, where))
    return grown(1.0)
