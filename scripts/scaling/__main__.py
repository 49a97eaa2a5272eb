"""Measure how cost and speed scale, and write the tables: python -m scripts.scaling docs/performance.md

Four parts: what a token costs against model size, length and batch, beside the formula; two processes of one thread beside one process;
loading and saving beside plain reads and writes; tokenising and packing, beside TRL's with --peer_python. Use a machine that does
nothing else: what others took of it stands in the tables. --quick: the smallest of everything, for a test.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from paddlealign.machine import available_cores
from scripts.marks import fill
from scripts.scaling.cost import cost_table, layouts_table
from scripts.scaling.disk import disk_table
from scripts.scaling.rows import packing_table, tokenising_table

PARTS = ("cost", "processes", "disk", "rows")


def main(argv: Sequence[str]) -> int:
    """Measure the parts that are asked for, and write each where the page keeps it."""
    parser = argparse.ArgumentParser("python -m scripts.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="the page whose tables are written")
    parser.add_argument("--quick", action="store_true", help="the smallest of everything")
    parser.add_argument("--folder", type=Path, default=Path(".benchmark/scaling"), help="on the disk that is measured; models stay there")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="these only; the others' tables stay")
    parser.add_argument("--rounds", type=int, default=3, help="how often layouts and the disk are measured")
    parser.add_argument("--threads", type=int, default=available_cores(), help="of the cost's process")
    parser.add_argument("--peer_python", help="the python of an environment that has TRL")
    told = parser.parse_args(argv)
    folder, rows, rounds = told.folder.resolve(), 200 if told.quick else 100_000, 1 if told.quick else told.rounds
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[], str]] = {
        "cost": lambda: cost_table(folder, told.threads, told.quick),
        "processes": lambda: layouts_table(folder, rounds, told.quick),
        "disk": lambda: disk_table(folder, rounds, told.quick),
        "rows": lambda: f"{tokenising_table(rows, told.peer_python)}\n\n{packing_table(rows, told.peer_python)}",
    }
    for name in told.parts:
        table = parts[name]()
        fill(told.page, f"scaling, {name}", table)
        print(table, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
