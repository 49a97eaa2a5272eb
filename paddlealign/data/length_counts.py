"""How long the prompts and the answers of a data set are: counts over bins, for people to look at."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from paddlealign.data.examples import Examples

BINS = 40


def count_lengths(sets: Mapping[str, np.ndarray], bins: int = BINS) -> dict[str, Any]:
    """Sets of lengths over the same bins of whole tokens: {edges, series: [{name, counts, count, mean, longest}]}.

    sets: int64 [any] by name; empty ones are left out. edges: ``counts + 1`` whole numbers, a bin has its left edge and not its right one.
    """
    filled = {name: lengths for name, lengths in sets.items() if len(lengths)}
    low = min((int(lengths.min()) for lengths in filled.values()), default=0)
    high = max((int(lengths.max()) for lengths in filled.values()), default=0) + 1
    width = max(1, -(-(high - low) // bins))
    edges = np.arange(low, low + width * (-(-(high - low) // width) + 1), width)
    series = [
        {
            "name": name,
            "counts": np.histogram(lengths, edges)[0].tolist(),
            "count": len(lengths),
            "mean": round(float(lengths.mean()), 2),
            "longest": int(lengths.max()),
        }
        for name, lengths in filled.items()
    ]
    return {"edges": edges.tolist(), "series": series}


def prompt_and_answer_lengths(examples: Examples, names: tuple[str, ...]) -> dict[str, Any]:
    """``count_lengths`` of the prompts, and of the answers by their place behind the prompt.

    names: of the places, such as chosen and rejected; further places count as the last of them.
    """
    lengths = examples.segments["length"].astype(np.int64)
    owners = np.repeat(np.arange(len(examples)), np.diff(examples.first))
    places = np.arange(len(lengths)) - examples.first[owners]
    answers = {name: lengths[places == number] for number, name in enumerate(names[:-1], 1)}
    answers[names[-1]] = lengths[places >= len(names)]
    return {"prompts": count_lengths({"prompts": lengths[places == 0]}), "answers": count_lengths(answers)}
