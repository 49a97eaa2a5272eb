"""Measure what is padding, how evenly work is shared out, and how long planning takes: python -m scripts.measure.packing [EXAMPLES]

Workloads: the quickstart's rows, and preference pairs of lognormal lengths (prompts of 300 tokens in the mean, answers of 120, sigma 0.6,
pairs of at most 1,020 tokens). The first tables are of 8 processes that take 4 micro-batches a step.

- one each: the padding of a rectangle with one row for each example, where the longest of the micro-batch sets the width.
- rows: the same with the micro-batch's examples packed into rows of max_length, as few as best fit needs and evenly filled.
- here: the padding where a micro-batch is one row, as a run lays it.
- waits: the share of the processes' time that they wait for the fullest of a step, if positions are time: in the epoch's order, and as a
  run shares a step out.
- largest: positions of the largest micro-batch, likewise.

The last table is of planning an epoch of EXAMPLES pairs (10,000,000), in seconds of one core.
"""

import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from paddlealign.data.order import EpochPlan, MicroBatch, Step, epoch_plan
from paddlealign.data.packing import lengths_of, pack_rows, row_length

RANKS, ACCUMULATION = 8, 4
ROOT = Path(__file__).resolve().parents[2]


class Workload(NamedTuple):
    """Rows and their sizes of batches. rows: of a micro-batch, packed: packed rows of one, tokens: tokens of one."""

    name: str
    lengths: np.ndarray
    max_length: int
    rows: int
    packed: int
    tokens: int


def quickstart(command: str) -> np.ndarray:
    """Tokens of the quickstart's training rows."""
    from paddlealign.arguments.parsing import parse
    from paddlealign.recipes.rows import prepare_rows

    with tempfile.TemporaryDirectory() as folder:
        file = str(ROOT / "scripts" / "llama" / f"quickstart_{command}.json")
        arguments = parse(command, [file, "--model_name_or_path", str(ROOT / "data" / "base_model"), "--output_dir", folder])
        return lengths_of(prepare_rows(arguments, "sft" if command == "sft" else "preference", True).train)


def lognormal_pairs(count: int) -> np.ndarray:
    """Tokens of pairs: the prompt once and both answers."""
    random = np.random.default_rng(0)
    found = np.zeros(0, np.int64)
    while len(found) < count:
        parts = [random.lognormal(np.log(mean) - 0.18, 0.6, count) for mean in (300, 120, 120)]
        tokens = sum(np.ceil(part).astype(np.int64) for part in parts)
        found = np.concatenate([found, tokens[tokens <= 1020]])
    return found[:count]


def planned(load: Workload, packing: str) -> EpochPlan:
    """An epoch of the workload."""
    size = {"tokens": 1, "next_fit": load.packed, "best_fit": load.packed}.get(packing, load.rows)
    max_length = load.tokens if packing == "tokens" else load.max_length
    return epoch_plan(
        load.lengths, seed=0, epoch=0, max_length=max_length, micro_batch_size=size, accumulation=ACCUMULATION, ranks=RANKS, packing=packing
    )


def in_order(plan: EpochPlan, index: int) -> Step:
    """A whole step as the epoch's order has it, cut and not shared out."""
    size = plan.micro_batch_size
    of_a_step = size * plan.accumulation * plan.ranks
    first, end = index * of_a_step, (index + 1) * of_a_step
    cuts = np.arange(first, end + 1) if plan.starts is None else plan.starts[first : end + 1]
    units = [tuple(plan.order[a:b].tolist()) for a, b in pairwise(cuts)]
    batches = [tuple(units[at : at + size]) for at in range(0, of_a_step, size)]
    return tuple(tuple(batches[rank :: plan.ranks]) for rank in range(plan.ranks))


def level_rows(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """As few rows as best fit needs, filled evenly where that makes the longest shorter."""
    rows = pack_rows(lengths, capacity, best_fit=True)
    level: list[list[int]] = [[] for _ in rows]
    filled = np.zeros(len(rows), np.int64)
    for index in np.argsort(-lengths, kind="stable").tolist():
        level[int(filled.argmin())].append(index)
        filled[filled.argmin()] += lengths[index]
    return level if filled.max() < max(lengths[row].sum() for row in rows) else rows


def rectangle(load: Workload, batch: MicroBatch, packed: bool) -> int:
    """Positions of a micro-batch whose rows are as long as its longest."""
    rows = [list(row) for row in batch]
    if packed and all(len(row) == 1 for row in rows):
        ids = [index for row in rows for index in row]
        rows = [[ids[place] for place in row] for row in level_rows(load.lengths[ids], load.max_length)]
    if not packed:
        rows = [[index] for row in rows for index in row]
    return len(rows) * row_length(max(int(load.lengths[row].sum()) for row in rows))


def table_row(load: Workload, packing: str) -> str:
    """One line of the first table, over the epoch's whole steps, 2,000 of them at most."""
    plan = planned(load, packing)
    whole = plan.units // (plan.micro_batch_size * ACCUMULATION * RANKS)
    chosen = np.unique(np.linspace(0, whole - 1, min(whole, 2000)).astype(int)).tolist()
    steps = {"order": [in_order(plan, index) for index in chosen], "shared": [plan.step(index) for index in chosen]}
    cells = [packing, f"{len(plan.order) / plan.units * plan.micro_batch_size:.1f}", f"{plan.steps:,}"]
    tokens = sum(int(load.lengths[list(row)].sum()) for step in steps["shared"] for rank in step for batch in rank for row in batch)
    for packed in (False, True):
        batches = [batch for step in steps["order"] for rank in step for batch in rank]
        cells.append(f"{1 - tokens / sum(rectangle(load, batch, packed) for batch in batches):.1%}")
    positions = {
        name: np.array(
            [[[row_length(sum(int(load.lengths[list(row)].sum()) for row in batch)) for batch in rank] for rank in it] for it in of]
        )
        for name, of in steps.items()
    }
    cells.append(f"{1 - tokens / positions['shared'].sum():.2%}")
    for found in positions.values():
        of_rank = found.sum(2)
        cells.append(f"{1 - of_rank.mean(1).sum() / of_rank.max(1).sum():.1%}")
    cells += [f"{found.max():,}" for found in positions.values()]
    return f"| {' | '.join(cells)} |"


def main(count: int) -> None:
    """Print both tables."""
    loads = [
        Workload("quickstart SFT", quickstart("sft"), 256, 8, 2, 512),
        Workload("quickstart DPO", quickstart("dpo"), 256, 8, 2, 512),
        Workload("100,000 lognormal pairs", lognormal_pairs(100_000), 1024, 4, 2, 2048),
    ]
    head = ["packing", "rows each", "steps", "one each", "rows", "here", "waits", "shared out", "largest", "shared out"]
    for load in loads:
        mean = load.lengths.mean()
        print(f"\n{load.name}: {len(load.lengths):,} examples of {mean:.0f} tokens in the mean, max_length {load.max_length}\n")
        print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
        for packing in ("micro_batch", "by_length", "next_fit", "best_fit", "tokens"):
            print(table_row(load, packing))
    load = Workload("", lognormal_pairs(count), 1024, 4, 2, 2048)
    print(
        f"\n{count:,} pairs:\n\n| packing | an epoch, s | a step, ms | bytes an example | padding of packed rows |\n|---|---|---|---|---|"
    )
    for packing in ("micro_batch", "by_length", "next_fit", "best_fit", "tokens"):
        start = time.process_time()
        plan = planned(load, packing)
        whole = time.process_time() - start
        start = time.process_time()
        for index in range(0, plan.steps, -(-plan.steps // 200)):
            plan.step(index)
        step = (time.process_time() - start) / len(range(0, plan.steps, -(-plan.steps // 200)))
        kept = plan.lengths.nbytes + plan.order.nbytes + (0 if plan.starts is None else plan.starts.nbytes)
        room = load.tokens if packing == "tokens" else load.max_length
        left = "" if plan.starts is None else f"{1 - load.lengths.sum() / room / plan.units:.1%}"
        print(f"| {packing} | {whole:.1f} | {1000 * step:.2f} | {kept / count:.0f} | {left} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
