"""Whether two systems did the same work: as many optimizer steps, and in the first one the same losses, log-probs and gradient."""

from collections.abc import Mapping, Sequence
from typing import Any

# What is compared of the first step where both systems log it, and how far apart it may be, as a share.
FLOAT = {"loss": 1e-4, "logps/chosen": 1e-4, "logps/rejected": 1e-4, "grad_norm": 2e-3}
HALF = {"loss": 5e-3, "logps/chosen": 5e-3, "logps/rejected": 5e-3, "grad_norm": 1e-1}


def differences(theirs: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]], steps: int, half: bool) -> list[str]:
    """What differs, in words; empty where the work was equal. theirs, ours: the lines of each step. steps: as many as there must be."""
    found = [f"{len(lines)} steps, not {steps}" for lines in (theirs, ours) if len(lines) != steps]
    if found:
        return found
    for name, limit in (HALF if half else FLOAT).items():
        if name in theirs[0] and name in ours[0]:
            a, b = float(theirs[0][name]), float(ours[0][name])
            if not abs(a - b) <= limit * abs(b):
                found.append(f"first {name} {a:.6g}, not {b:.6g}")
    return found
