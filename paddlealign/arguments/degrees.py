"""What parallel keys mean while this version trains in one process. Parallel training replaces this file's one rule."""

from collections.abc import Mapping
from typing import Any

from paddlealign.errors import UserError

# key -> its type. A whole number up to 1, false, and an empty text ask for nothing.
PARALLEL_KEYS: dict[str, type] = {
    "tensor_parallel_degree": int,
    "pipeline_parallel_degree": int,
    "virtual_pp_degree": int,
    "sharding_parallel_degree": int,
    "data_parallel_degree": int,
    "sep_parallel_degree": int,
    "context_parallel_degree": int,
    "expert_parallel_degree": int,
    "expert_tensor_parallel_degree": int,
    "sequence_parallel": bool,
    "sharding": str,
}
SHARDING_WORDS = ("stage1", "stage2", "stage3", "offload")


def read_environment(environment: Mapping[str, str]) -> int:
    """How many processes paddle.distributed.launch started, 1 where there is no launcher."""
    count = environment.get("PADDLE_TRAINERS_NUM", "1")
    return int(count) if count.isdigit() else 1


def parallel_notes(asked: Mapping[str, Any], processes: int) -> list[str]:
    """The lines to tell the user about the parallel keys that they set. Raises UserError where the run would not be what was asked.

    asked: parallel key -> value, already of the key's type. processes: see ``read_environment``.
    One process computes the same numbers as several would, so a degree is no reason to stop it: a rehearsal on one device is
    welcome. Several processes would each train alone and overwrite each other, so they are refused.
    """
    for word in str(asked.get("sharding", "")).split():
        if word not in SHARDING_WORDS:
            raise UserError(f'sharding: "{asked["sharding"]}" is not allowed; allowed: {", ".join(SHARDING_WORDS)}, or "".')
    active = {key: value for key, value in asked.items() if (value > 1 if PARALLEL_KEYS[key] is int else bool(value))}
    shown = [f"{key} {value}" if PARALLEL_KEYS[key] is not bool else key for key, value in active.items()]
    if processes > 1:
        keys = f" ({', '.join(shown)})" if shown else ""
        raise UserError(
            f"Started with {processes} processes{keys}, but this version trains in one process. Start it with plain python, without "
            "paddle.distributed.launch; the parallel keys may stay in the file."
        )
    if not active:
        return []
    notes = [f"{', '.join(shown)}: for several processes; this one process computes the same numbers without."]
    copies = max(active.get("sharding_parallel_degree", 1), active.get("data_parallel_degree", 1))
    if copies > 1:
        notes.append(
            f"With {copies} devices reading different rows a step would take {copies} times as many; for the same step here multiply "
            f"gradient_accumulation_steps by {copies}."
        )
    elif "sharding" in active:
        notes.append("Devices under sharding read different rows: there a step takes more rows than here; see gradient_accumulation_steps.")
    return notes
