"""How fast rows become tokens and packed batches, beside TRL's where a Python that has it is given."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from paddlealign.data.example import Example, Response
from paddlealign.data.order import epoch_plan
from paddlealign.data.packing import lay
from scripts.measure import encoding
from scripts.measure.packing import lognormal_pairs

LENGTH, OF_BATCH = 1024, 4
THEIRS = """
import sys, time
import numpy as np
from datasets import Dataset
from trl import pack_dataset
lengths = np.load(sys.argv[1])
rows = Dataset.from_dict({"input_ids": [[7] * int(length) for length in lengths]})
began = time.perf_counter()
pack_dataset(rows, int(sys.argv[2]), strategy="bfd")
print("SECONDS", time.perf_counter() - began, len(lengths))
"""


def tokenising_table(rows: int, peer: str | None) -> str:
    """Rows a second, as scripts/measure/encoding.py measures them: 1 and 2 processes."""
    lines = ["| tokenising | rows/s | s of CPU | MB |", "|---|---:|---:|---:|"]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows.jsonl"
        encoding.make_rows(path, rows)
        encoding.make_tokenizer(path.parent / "tokenizer")
        ways = [("PaddleAlign", sys.executable, encoding.OURS), *([("TRL", peer, encoding.THEIRS)] if peer else [])]
        for title, python, script in ways:
            for workers in (1, 2):
                cache = path.parent / f"{title}-{workers}"
                found = encoding.measure(title, python, script, path, cache, workers)
                told = [f"{title}, dataset_num_proc {workers}", f"{found.rows / found.seconds:,.0f}", f"{found.cpu:.1f}"]
                lines.append(f"| {' | '.join([*told, f'{found.peak / 1e6:,.0f}'])} |")
    return "\n".join(lines)


def packing_table(rows: int, peer: str | None) -> str:
    """Rows a second: an epoch planned, its rows packed by best fit, and batches laid of examples that are in memory."""
    lengths = lognormal_pairs(rows)
    lines = ["| packing | rows/s |", "|---|---:|"]
    for title, packing in (("an epoch planned, no packing", "micro_batch"), ("an epoch planned, best fit", "best_fit")):
        began = time.perf_counter()
        epoch_plan(lengths, seed=0, epoch=0, max_length=LENGTH, micro_batch_size=OF_BATCH, packing=packing)
        lines.append(f"| PaddleAlign, {title} | {rows / (time.perf_counter() - began):,.0f} |")
    few = min(rows, 4000) // OF_BATCH * OF_BATCH
    examples = [_example(int(length)) for length in lengths[:few]]
    began = time.perf_counter()
    for at in range(0, few, OF_BATCH):
        lay(examples, [[number] for number in range(at, at + OF_BATCH)], 0)
    lines.append(f"| PaddleAlign, batches laid | {few / (time.perf_counter() - began):,.0f} |")
    if peer:
        with tempfile.TemporaryDirectory() as name:
            np.save(Path(name) / "lengths.npy", lengths)
            words = [peer, "-c", THEIRS, str(Path(name) / "lengths.npy"), str(LENGTH)]
            environ = {**os.environ, "HF_DATASETS_CACHE": name}
            done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
        seconds = float(next(line for line in done.stdout.splitlines() if line.startswith("SECONDS")).split()[1])
        lines.append(f"| TRL, pack_dataset, best fit | {rows / seconds:,.0f} |")
    return "\n".join(lines)


def _example(length: int) -> Example:
    """A pair of so many tokens."""
    prompt = length // 2
    sizes = ((length - prompt) // 2, length - prompt - (length - prompt) // 2)
    return Example(np.ones(prompt, "int32"), tuple(Response(np.ones(size, "int32"), np.ones(size, bool)) for size in sizes))
