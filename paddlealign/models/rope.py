"""Rotary embeddings: what config.json says about them, and the angles that follow."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddlealign.errors import UserError
from paddlealign.models.config_values import positive_int, positive_number


@dataclass(frozen=True)
class RopeScaling:
    """How the rotary frequencies are stretched for longer texts.

    kind: "linear" (all frequencies divided by ``factor``) or "llama3" (LLaMA 3.1 and later: only the slow ones are,
    with a smooth passage between). The last three fields belong to "llama3".
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


def frequencies(theta: float, head_dim: int, scaling: RopeScaling | None) -> np.ndarray:
    """Angle by which each pair of a head turns per position: float32 [head_dim / 2].

    Without scaling, pair i turns by theta^(-2 i / head_dim). Computed in float64 and rounded once.
    """
    plain = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if scaling is None:
        return plain.astype(np.float32)
    if scaling.kind == "linear":
        return (plain / scaling.factor).astype(np.float32)
    # llama3: how often a pair turns within the original context decides how much of it is stretched.
    turns = scaling.original_max_positions * plain / (2 * np.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(kept, 0.0, 1.0)
    return (plain * (kept + (1 - kept) / scaling.factor)).astype(np.float32)


def read_rope(source: Mapping[str, Any], max_positions: int, where: str) -> tuple[float, RopeScaling | None]:
    """Rotary base and scaling, from rope_parameters (transformers 5) or rope_theta and rope_scaling (transformers 4)."""
    old, new = source.get("rope_scaling"), source.get("rope_parameters")
    key = "rope_scaling" if new is None else "rope_parameters"
    parameters = old if new is None else new
    if parameters is not None and not isinstance(parameters, dict):
        raise UserError(f"{where}: {key} is {json.dumps(parameters)}; an object or null was expected.")
    parameters = dict(parameters or {})
    where_rope = f"{where}, {key}"
    if new is not None and old is not None and old != new:
        raise UserError(f"{where}: rope_parameters and rope_scaling differ; keep one of them.")
    theta = positive_number(source, "rope_theta", 10000.0, where)
    if "rope_theta" in parameters:
        inner = positive_number(parameters, "rope_theta", theta, where_rope)
        if "rope_theta" in source and inner != theta:
            raise UserError(f"{where}: rope_theta is {theta} and {key}.rope_theta is {inner}; keep one of them.")
        theta = inner
    # Older files say "type", newer ones "rope_type", and some say both.
    kinds = {parameters.get(name) for name in ("type", "rope_type")} - {None}
    if len(kinds) > 1:
        raise UserError(f"{where_rope}: type and rope_type differ ({parameters['type']}, {parameters['rope_type']}).")
    kind = kinds.pop() if kinds else "default"
    known = {"default": (), "linear": ("factor",)}
    known["llama3"] = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    if kind not in known:
        raise UserError(f"{where_rope}: the type {kind!r} is not supported. Supported: {', '.join(known)}.")
    allowed = {"type", "rope_type", "rope_theta", "partial_rotary_factor", *known[kind]}
    for name in parameters:
        if name not in allowed:
            raise UserError(f"{where_rope}: the key {name} is not understood for the type {kind!r}.")
    if parameters.get("partial_rotary_factor", 1.0) not in (None, 1, 1.0):
        raise UserError(f"{where_rope}: partial_rotary_factor is {parameters['partial_rotary_factor']}; only 1.0 is supported.")
    for name in known[kind]:
        if parameters.get(name) is None:
            raise UserError(f"{where_rope}: the key {name} is missing; the type {kind!r} needs it.")
    if kind == "default":
        return theta, None
    factor = positive_number(parameters, "factor", 1.0, where_rope)
    if kind == "linear":
        return theta, RopeScaling("linear", factor)
    low = positive_number(parameters, "low_freq_factor", 1.0, where_rope)
    high = positive_number(parameters, "high_freq_factor", 4.0, where_rope)
    if high <= low:
        raise UserError(f"{where_rope}: high_freq_factor {high} must be greater than low_freq_factor {low}.")
    original = positive_int(parameters, "original_max_position_embeddings", max_positions, where_rope)
    return theta, RopeScaling("llama3", factor, low, high, original)
