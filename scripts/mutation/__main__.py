"""Put faults into the package, one at a time, and see whether the tests notice: python -m scripts.mutation [PAGE] [--only WORDS]

Works on copies of the committed files; nothing here is touched. For each fault the test files that it names are run until one fails. Prints
which test that was, or that the fault survived, and ends with 1 if any did. PAGE: a Markdown file to write the table into, between its
"mutation" lines. --only: the faults whose words hold these. --jobs: how many at a time. About 15 minutes on two cores.
"""

import argparse
import os
import queue
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from scripts.marks import fill
from scripts.mutation.faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600


def misplaced(root: Path, faults: Sequence[Fault]) -> list[str]:
    """The faults whose text does not stand in their file exactly once, or whose tests are not there; one line each."""
    lines = []
    for fault in faults:
        count = (root / "paddlealign" / fault.file).read_text("utf-8").count(fault.before)
        if count != 1:
            lines.append(f"{fault.what}: its text stands {count} times in {fault.file}")
        lines += [f"{fault.what}: no tests/{test}" for test in fault.tests if not (root / "tests" / test).is_file()]
    return lines


def copy_of(root: Path, folder: Path) -> None:
    """The committed files of a checkout."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=root, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)


def first_failure(copy: Path, fault: Fault) -> str | None:
    """The test that notices the fault, or None. The file is as it was afterwards."""
    file = copy / "paddlealign" / fault.file
    right = file.read_text("utf-8")
    file.write_text(right.replace(fault.before, fault.after), "utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        for test in fault.tests:
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", f"tests/{test}"]
            try:
                done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
            except subprocess.TimeoutExpired:
                return f"tests/{test}: no end within {SECONDS} s"
            if done.returncode:
                found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
                return found[1].partition("[")[0] if found else f"tests/{test}"
    finally:
        file.write_text(right, "utf-8")
    return None


def table_of(found: Sequence[tuple[Fault, str | None]]) -> list[str]:
    """The Markdown rows."""
    lines = ["| file | fault | noticed by |", "|---|---|---|"]
    return lines + [f"| {fault.file} | {fault.what} | {f'`{test}`' if test else '**nothing**'} |" for fault, test in found]


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", nargs="?", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    faults = [fault for fault in FAULTS if asked.only in fault.what]
    lost = misplaced(ROOT, faults)
    if lost:
        print("\n".join(lost))
        return 1
    start = time.monotonic()
    found = look_for(faults, asked.jobs)
    alive = sum(test is None for _, test in found)
    told = f"{len(found) - alive} of {len(found)} faults are noticed, in {(time.monotonic() - start) / 60:.0f} minutes"
    print(told)
    if asked.page:
        fill(asked.page, "mutation", "\n".join([f"{told}:", "", *table_of(found)]))
    return 1 if alive else 0


def look_for(faults: Sequence[Fault], jobs: int) -> list[tuple[Fault, str | None]]:
    """Each fault with the test that notices it, or None."""
    copies: queue.Queue[Path] = queue.Queue()

    def look(fault: Fault) -> str | None:
        copy = copies.get()
        try:
            return first_failure(copy, fault)
        finally:
            copies.put(copy)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        for number in range(jobs):
            copy = Path(folder) / str(number)
            copy.mkdir()
            copy_of(ROOT, copy)
            copies.put(copy)
        found = []
        for fault, test in zip(faults, tqdm(pool.map(look, faults), total=len(faults), desc="faults", leave=False), strict=True):
            found.append((fault, test))
            tqdm.write(f"{test or 'SURVIVED'}: {fault.what} ({fault.file})")
    return found


if __name__ == "__main__":
    sys.exit(main())
