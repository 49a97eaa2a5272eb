"""Measure ours beside TRL and PaddleNLP at equal work, and write the page.

    python -m scripts.benchmark docs/performance.md            everything: 64 pairs a set, three rounds (several hours)
    python -m scripts.benchmark docs/performance.md --quick    12 pairs, two rounds, the main systems (about 10 minutes)

TRL gets an environment of its own in the folder; PaddleNLP runs in the one that this is started in. Use a machine that does nothing else:
what others took of it is measured, and the page says it.
"""

import argparse
import sys
from pathlib import Path

from paddlealign.machine import available_cores
from scripts.benchmark.environments import trl_python, versions
from scripts.benchmark.page import write_page
from scripts.benchmark.run import Plan, prepare_files, run_all
from scripts.benchmark.systems import SYSTEMS
from scripts.benchmark.workload import SHAPES


def main(argv: list[str]) -> int:
    """Run, write the page; 1 where a peer failed or work was not equal."""
    parser = argparse.ArgumentParser(
        "python -m scripts.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path, help="the page whose tables are written")
    parser.add_argument("--quick", action="store_true", help="the common set only, fewer pairs and systems")
    parser.add_argument("--folder", type=Path, default=Path(".benchmark"), help="where models, rows and runs are kept")
    parser.add_argument("--peers", type=Path, help="TRL's environment; in the folder unless it is given")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, help="these only; ours must be among them")
    parser.add_argument("--sets", nargs="+", choices=SHAPES, help="these only")
    parser.add_argument("--pairs", type=int, help="pairs of a set, a multiple of 4")
    parser.add_argument("--rounds", type=int, help="how often each system is run")
    parser.add_argument("--threads", type=int, default=available_cores(), help="for each system; all cores unless it is given")
    told = parser.parse_args(argv)
    plan = Plan(
        sets=told.sets or (["common"] if told.quick else list(SHAPES)),
        pairs=told.pairs or (12 if told.quick else 64),
        rounds=told.rounds or (2 if told.quick else 3),
        warm_up=1 if told.quick else 2,
        systems=[
            key for key, system in SYSTEMS.items() if key in (told.systems or SYSTEMS) and (told.systems or system.quick or not told.quick)
        ],
        threads=told.threads,
    )
    folder = told.folder.resolve()
    python = trl_python((told.peers or folder / "trl").resolve())
    prepare_files(folder, plan)
    runs, failed = run_all(folder, python, plan)
    write_page(told.page, runs, failed, plan, versions())
    return 1 if failed or any(run.unequal for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
