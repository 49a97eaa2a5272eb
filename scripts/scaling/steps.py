"""Training steps timed in fresh processes: of one process, or of several under Paddle's launcher.

Started by its path with a case's fields it is such a process: it trains, and appends a line for each step to a file.
"""

import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from scripts.benchmark.measure import measure
from scripts.measure.memory import ROOT, Case, case_of, make_model, make_trainer

WARM_UP = 1
LIMIT_SECONDS = 1800.0


class Timed(NamedTuple):
    """Steps of a run. seconds: the median of a step. least, most: the fastest and the slowest. other_load: see ``benchmark.measure``."""

    seconds: float
    least: float
    most: float
    other_load: float


def time_steps(case: Case, folder: Path, threads: int, cores: int, steps: int) -> Timed:
    """Train a case; threads: of each of its processes. cores: that all together may use. folder: for models, which are kept, and logs."""
    name = f"model-{case.hidden}-{case.layers}-{case.vocabulary}"
    if not (folder / name / "config.json").exists():
        make_model(case, folder / name)
    log, several = folder / "steps.jsonl", case.tensor * case.pipeline * case.data
    words = [str(Path(__file__)), str(folder / name), str(log), str(cores), str(WARM_UP + steps), *map(str, case)]
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(several), "--log_dir", str(folder / "log")]
    command = [sys.executable, *(launch if several > 1 else []), *words]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MKL_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    found = measure(command, environ, ROOT, log, folder / "words.txt", LIMIT_SECONDS)
    seconds = [line["seconds"] for line in found.lines[WARM_UP:]]
    return Timed(median(seconds), min(seconds), max(seconds), found.other_load)


def main(checkpoint: Path, log: Path, cores: int, steps: int, case: Case) -> None:
    """What each process does."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    topology, _, load = make_trainer(case, checkpoint)
    _, step = load()
    for _ in range(steps):
        began = time.perf_counter()
        step()
        if topology.rank == 0:
            with log.open("a") as file:
                file.write(json.dumps({"seconds": time.perf_counter() - began}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), case_of(sys.argv[5:]))
