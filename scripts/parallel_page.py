"""Hold every layout of processes to one process on small models, and write docs/parallel.md's table from what was measured.

    python -m scripts.parallel_page docs/parallel.md            train under all layouts (about 6 minutes), and write the table into the page
    python -m scripts.parallel_page docs/parallel.md --check    the same, and fail where the page claims what does not hold

Three models are trained by SFT and DPO, against cached log-probs and against a frozen copy, and one as a reward model, for 20 steps on real
processes (tests/distributed/ranks_training.py). Each figure is the largest difference from one process anywhere in these ten runs, as a
share of the largest value of its kind.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.distributed import layouts
from tests.distributed.launching import ROOT, run_ranks
from tests.distributed.layouts import LAYOUTS, SINGLE

SCRIPT = ROOT / "tests" / "distributed" / "ranks_training.py"
RUNS = [f"{model} {objective}" for model, objective in layouts.RUNS]
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
# How much worse than the page says a figure may be on another machine, whose kernels add in another order.
SLACK = 5.0
FLOOR = 1e-7

Run = dict[str, np.ndarray]


class Figures(NamedTuple):
    """The largest differences of a layout. Figures below FLOOR are written as that."""

    losses: float
    norms: float
    evaluation: float
    gradients: float
    weights: float


# Losses and metrics of 20 steps, norms of their gradients, the last evaluation, the first step's gradients, the last weights.
LIMITS = Figures(losses=1e-5, norms=1e-5, evaluation=1e-5, gradients=1e-5, weights=1e-4)


def train(layout: str, folder: Path, runs: Sequence[str] = RUNS, resume_from: Path | None = None) -> dict[str, Run]:
    """Train under one layout, or go on from what was saved under another; by the run's name what ranks_training.py found."""
    folder.mkdir(parents=True)
    words = [layout, str(folder), ",".join(runs), *([] if resume_from is None else [str(resume_from)])]
    if layout == SINGLE:
        subprocess.run([sys.executable, str(SCRIPT), *words], check=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)})
    else:
        run_ranks(SCRIPT, LAYOUTS[layout].ranks, *words, timeout=300)
    return {run: dict(np.load(folder / f"{run}.npz")) for run in runs}


def difference(found: Run, expected: Run, steps: slice = slice(None)) -> Figures:
    """How far one run is from another. steps: of the expected one's losses and norms, those that the found one has."""
    worst = dict.fromkeys(Figures._fields, 0.0)
    for name, array in found.items():
        if name == "answers":  # tokens: equal or not
            continue
        theirs = expected[name][steps] if name in ("losses", "norms") else expected[name]
        # Metrics stand in columns: each is held to its own size, a margin or a reward to that of a nat at least.
        scale = np.maximum(np.abs(theirs).max(axis=0), 1.0) if name in ("losses", "evaluation") else np.abs(theirs).max()
        kind = {"gradient": "gradients", "weight": "weights"}.get(name.split()[0], name)
        worst[kind] = max(worst[kind], float((np.abs(array - theirs) / scale).max()))
    return Figures(**worst)


def largest(figures: list[Figures]) -> Figures:
    """The worst of several."""
    return Figures(*map(max, zip(*figures, strict=True)))


def table(measured: dict[str, Figures]) -> str:
    """The page's table."""
    lines = [f"| layout | processes | {' | '.join(Figures._fields)} |", f"|---|---:|{'---:|' * len(Figures._fields)}"]
    for name, figures in measured.items():
        lines.append(f"| {name} | {LAYOUTS[name].ranks} | {' | '.join(f'{max(value, FLOOR):.0e}' for value in figures)} |")
    return "\n".join(lines)


def read_table(page: str) -> dict[str, Figures]:
    """The figures that the page claims, by layout."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.split(BEGIN)[1].split(END)[0].splitlines() if "|" in line]
    return {row[0]: Figures(*map(float, row[2:])) for row in rows[2:]}


def faults(layout: str, figures: Figures, claimed: dict[str, Figures]) -> list[str]:
    """Where the claims do not hold: a layout that the page has not, or a figure beyond its limit or far beyond what the page says."""
    if layout not in claimed:
        return [f"{layout} is not in the page"]
    rows = zip(Figures._fields, figures, claimed[layout], LIMITS, strict=True)
    return [
        f"{layout}: {kind} differ by {value:.1e}; the page says {told:.0e}, the limit is {limit:.0e}"
        for kind, value, told, limit in rows
        if not value <= min(limit, SLACK * told)
    ]


def main(path: Path, check: bool) -> int:
    """Train under all layouts; write the page's table, or hold the page to it."""
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        single = train(SINGLE, Path(folder) / SINGLE)
        for name in LAYOUTS:
            if name != SINGLE:
                found = train(name, Path(folder) / name)
                measured[name] = largest([difference(found[run], single[run]) for run in RUNS])
                print(name, measured[name], flush=True)
    page = path.read_text("utf-8")
    if not check:
        page = page.split(BEGIN)[0] + f"{BEGIN}\n{table(measured)}\n{END}" + page.split(END)[1]
        path.write_text(page, "utf-8")
    found = [fault for name, figures in measured.items() for fault in faults(name, figures, read_table(page))]
    print(table(measured), *found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--check" in sys.argv[2:]))
