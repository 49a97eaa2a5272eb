"""Distributions for the page: margins of pairs before and after, and lengths of the data. Pure functions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paddlealign.report.thin import digits

BINS = 40
# The names in ``margins/step-<N>.json``: what the policy's answers are held against, the policy itself, and the rewards that follow.
REFERENCE, POLICY, REWARD = "reference_logps/margins", "logps/margins", "rewards/margins"


def shared_bins(sets: Mapping[str, Sequence[float]], bins: int = BINS) -> dict[str, Any]:
    """Several sets of values over the same bins, so that they can be compared: {edges, series: [{name, counts, mean, above}]}.

    counts: share of the set in each bin. above: share of values above zero. The outermost bins take what lies beyond 1.5 times the
    range between the 1st and 99th percentile, which would otherwise leave the rest in a few bins. Empty where no set has a value.
    """
    finite = {name: np.array([it for it in values if it is not None and np.isfinite(it)], np.float64) for name, values in sets.items()}
    finite = {name: values for name, values in finite.items() if len(values)}
    if not finite:
        return {}
    together = np.concatenate(list(finite.values()))
    low, high = np.percentile(together, [1, 99])
    slack = (high - low) / 4
    low, high = max(low - slack, together.min()), min(high + slack, together.max())
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    series = []
    for name, values in finite.items():
        counts, _ = np.histogram(values.clip(low, high), edges)
        series.append(
            {
                "name": name,
                "counts": [digits(it) for it in (counts / len(values)).tolist()],
                "mean": digits(float(values.mean())),
                "above": digits(float((values > 0).mean())),
            }
        )
    return {"edges": [digits(it) for it in edges.tolist()], "series": series}


def margin_histograms(margins: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The histograms that a run's margins give: each {title, unit, edges, series}.

    The rewards' margins at the first and at the last evaluation; and, where there is a reference, the log-probs' margins of the reference,
    which is what the policy began with or is held to, and of the policy at the last evaluation.
    """
    if not margins:
        return []
    first, last = min(margins), max(margins)
    names = {first: f"step {first}", last: f"step {last}"}
    charts = [
        (
            "Reward margin of the dev pairs",
            "chosen less rejected, in reward",
            {name: margins[at].get(REWARD, []) for at, name in names.items()},
        ),
        (
            "Log-prob margin of the dev pairs",
            "chosen less rejected, in nats",
            {"before: the reference": margins[last].get(REFERENCE, []), f"after: the policy, step {last}": margins[last].get(POLICY, [])},
        ),
    ]
    made = [
        {"title": title, "unit": unit, **shared_bins(sets)}
        for title, unit, sets in charts
        if REFERENCE in margins[last] or "Reward" in title
    ]
    return [chart for chart in made if "edges" in chart]
