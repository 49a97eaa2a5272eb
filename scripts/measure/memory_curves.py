"""Measure the memory of DPO against vocabulary, length and responses per prompt: python -m scripts.measure.memory_curves PAGE PICTURE

Trains a small LLaMA of random weights (hidden 256, 4 layers; fp32, the reference's log-probs cached) for two steps of two micro-batches or
more, each case in a fresh process set up as a run sets itself up, and writes a table for each curve between the marks of PAGE
(docs/performance.md), and PICTURE (docs/images/memory.png). Of a peak, weights, gradients and the optimizer's moments are known (16 bytes a
parameter); what is left is what a batch takes. Fails where that grows faster than the rows do, or with the vocabulary by more than
what VOCABULARY_LIMIT says.

--quick: the two ends of each curve, with 2 layers and short rows, into PAGE alone where PICTURE is left out; for a test.

A row of n ranked answers is n - 1 pairs (``pairs adjacent``). These lie in one micro-batch, or one in each.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from scripts.marks import fill
from scripts.measure.memory import Case, Found, run

MARK = "memory"
# How much faster than the rows a batch's tensors may grow, by Paddle's count: the exponent of a power of the tokens.
LENGTH_LIMIT = 1.05
# The same of resident memory, which alone shows what NumPy holds. What malloc keeps of freed memory moves it by a tenth between runs.
RESIDENT_LIMIT = 1.2
# The most to the least that a batch's tensors take along the vocabulary, less a chunk of logits and what becomes the head's gradient. By
# Paddle's count of tensors: how much of the memory that malloc keeps fits the next tensor is a matter of chance in their sizes.
VOCABULARY_LIMIT = 1.1
CHUNK_BYTES = 4 * (1 << 25)  # a chunk of logits, in whose place their slope is made, see models/head.py


class Curve(NamedTuple):
    """What grows along a curve, as a heading and as an axis, and the cases by what is told of each."""

    heading: str
    axis: str
    cases: dict[int, Case]


def curves(quick: bool) -> list[Curve]:
    """The curves; quick: their ends, with less of everything."""
    base = Case(256, 2 if quick else 4, 8192, 256 if quick else 2048, 1, 2, responses=2)
    vocabularies = (8192, 32000) if quick else (8192, 32000, 128000)
    lengths = (256, 512) if quick else (512, 1024, 2048, 4096, 8192)
    answers = (2, 4) if quick else (2, 4, 8, 16)
    pair = base._replace(tokens=256 if quick else 512)
    return [
        Curve("vocabulary", "tokens in the vocabulary", {size: base._replace(vocabulary=size) for size in vocabularies}),
        Curve("tokens of a pair", "tokens of a pair", {size: base._replace(tokens=size) for size in lengths}),
        Curve(
            "answers to a prompt, one pair a micro-batch",
            "answers to a prompt",
            {count: pair._replace(micro_batches=max(2, count - 1)) for count in answers},
        ),
        Curve(
            "answers to a prompt, all pairs in one micro-batch",
            "answers to a prompt",
            {count: pair._replace(rows=count - 1) for count in answers},
        ),
    ]


def tokens_of(case: Case) -> int:
    """Tokens of a micro-batch."""
    return case.rows * case.tokens


def of_batch(found: Found) -> int:
    """Bytes of the peak that are neither weights nor gradients nor moments."""
    return found.measured - found.held


def head_bytes(case: Case) -> int:
    """Bytes of these that follow from the vocabulary: a chunk of logits, which become their slope, and the head's gradient."""
    targets = case.rows * (case.tokens - case.tokens // 4)
    return min(CHUNK_BYTES, 4 * targets * case.vocabulary) + 4 * case.vocabulary * case.hidden


def growth(sizes: Sequence[float], amounts: Sequence[float]) -> float:
    """The power of the size that an amount follows between the two largest: 1 is linear, 2 is quadratic."""
    return math.log(amounts[-1] / amounts[-2]) / math.log(sizes[-1] / sizes[-2])


def faults(found: Sequence[tuple[Curve, dict[int, Found]]]) -> list[str]:
    """Where a batch's memory is not flat in the vocabulary, or not linear in the tokens of a micro-batch."""
    wrong = []
    for curve, points in found:
        cases = [curve.cases[at] for at in points]
        if curve.heading == "vocabulary":
            rest = [it.tensors - it.held - head_bytes(case) for case, it in zip(cases, points.values(), strict=True)]
            if max(rest) > VOCABULARY_LIMIT * min(rest):
                wrong.append(f"{curve.heading}: without the head's share from {min(rest) / 1e6:.0f} to {max(rest) / 1e6:.0f} MB")
        elif tokens_of(cases[-1]) > tokens_of(cases[-2]):
            tokens = [tokens_of(case) for case in cases]
            tensors = growth(tokens, [it.tensors - it.held for it in points.values()])
            resident = growth(tokens, [of_batch(it) for it in points.values()])
            if tensors > LENGTH_LIMIT or resident > RESIDENT_LIMIT:
                wrong.append(f"{curve.heading}: tensors grow as the power {tensors:.2f} of the tokens, resident memory as {resident:.2f}")
    return wrong


def table(curve: Curve, points: dict[int, Found]) -> str:
    """A curve as a table, in MB."""
    heads = [curve.heading, "peak RSS", "Python and Paddle", "weights, gradients, optimizer", "the rest", "as planned"]
    heads += ["in tensors", "of it the head's", "bytes a token of a micro-batch"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---:|' * len(heads)}"]
    for at, found in points.items():
        case = curve.cases[at]
        sizes = [found.measured + found.before, found.before, found.held, of_batch(found)]
        sizes += [found.planned - found.held, found.tensors - found.held, head_bytes(case)]
        told = f"{(of_batch(found)) / tokens_of(case):,.0f}"
        lines.append(f"| {at:,} | {' | '.join(f'{size / 1e6:,.0f}' for size in sizes)} | {told} |")
    return "\n".join(lines)


def draw(found: Sequence[tuple[Curve, dict[int, Found]]], path: Path) -> None:
    """The curves as one picture: what a batch takes, and all of the peak above Python and Paddle."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(found), figsize=(4 * len(found), 3.4), layout="constrained")
    for axis, (curve, points) in zip(axes, found, strict=True):
        at = list(points)
        axis.plot(at, [it.measured / 1e6 for it in points.values()], "o-", label="above Python and Paddle")
        axis.plot(at, [it.held / 1e6 for it in points.values()], "o-", label="weights, gradients, optimizer")
        axis.plot(at, [of_batch(it) / 1e6 for it in points.values()], "o-", label="the rest")
        axis.plot(at, [(it.planned - it.held) / 1e6 for it in points.values()], "--", color="grey", label="the rest as planned")
        axis.set(title=curve.heading, xlabel=curve.axis, ylabel="MB", ylim=(0, None), xlim=(0, None))
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(argv: Sequence[str]) -> int:
    """Measure every case once, and write; 1 where a promise does not hold."""
    parser = argparse.ArgumentParser("python -m scripts.measure.memory_curves")
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path, nargs="?")
    parser.add_argument("--quick", action="store_true")
    told = parser.parse_args(argv)
    known: dict[Case, Found] = {}
    found: list[tuple[Curve, dict[int, Found]]] = []
    for curve in curves(told.quick):
        points = {}
        for at, case in curve.cases.items():
            if case not in known:
                known[case] = run(case)
            points[at] = known[case]
            print(f"{curve.heading} {at}: {of_batch(points[at]) / 1e6:.0f} MB beside {points[at].held / 1e6:.0f}", flush=True)
        found.append((curve, points))
    wrong = faults(found)
    fill(told.page, MARK, "\n\n".join([*(table(curve, points) for curve, points in found), *(f"**{it}**" for it in wrong)]))
    if told.picture:
        draw(found, told.picture)
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
