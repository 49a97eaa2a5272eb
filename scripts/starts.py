"""``python scripts/starts.py [STARTS] [RANKS]``: does making the groups ever hang? 50 starts of 4 ranks in a row, unless told otherwise.

Each start makes a tensor, a pipeline and a data axis where the number of ranks allows it, in turn, and adds up a number on each. Prints a
line for each start and how many passed; the exit code is 1 where one did not.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.distributed.launching import run_ranks

LIMIT_SECONDS = 60
RANKS = """
import sys
import time

import numpy as np

from paddlealign.parallel.collect import sum_over
from paddlealign.parallel.topology import start

began = time.perf_counter()
topology = start(*(int(word) for word in sys.argv[1:]))
for axis in (topology.tensor, topology.pipeline, topology.data, topology.everyone):
    assert sum_over(axis, np.array(1.0 + topology.rank)) == sum(1.0 + rank for rank in axis.ranks), axis
print(f"made in {time.perf_counter() - began:.1f} s")
"""


def layouts(ranks: int) -> list[tuple[int, int, int]]:
    """Every (tensor, pipeline, data) whose product is the number of ranks."""
    sizes = range(1, ranks + 1)
    return [(tensor, pipeline, data) for tensor in sizes for pipeline in sizes for data in sizes if tensor * pipeline * data == ranks]


def main(starts: int, ranks: int) -> int:
    """Start, print, count."""
    passed = 0
    for number in range(starts):
        layout = layouts(ranks)[number % len(layouts(ranks))]
        began = time.perf_counter()
        try:
            told = run_ranks(RANKS, ranks, *layout, timeout=LIMIT_SECONDS)[0].splitlines()[-1]
            passed += 1
        except AssertionError as error:
            told = f"FAILED: {error}"
        what = "tensor {} x pipeline {} x data {}".format(*layout)
        print(f"start {number + 1}: {what}: {time.perf_counter() - began:.1f} s, groups {told}", flush=True)
    print(f"{passed} of {starts} starts of {ranks} ranks passed")
    return int(passed != starts)


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*words, *(50, 4)[len(words) :]))
