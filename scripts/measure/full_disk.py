"""Let a real disk run full under a run, step by step: python -m scripts.measure.full_disk

In a mount namespace of its own (``unshare``, for which a user namespace is enough) the output folder is a tmpfs of so many KiB, for sizes
that end at different moments of the first, second and third checkpoint. Each run must end with 1 and one line that names
what to do, or go on; every checkpoint must be whole. Then the tmpfs grows, and the same command must end as the undisturbed run did.
Prints a row for each size.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.measure.kills import SAME, STEPS, half_written, outcome, words_of
from tests.small_runs import ROOT

# A checkpoint takes about 2 MB; two are kept, and one is written beside them.
SIZES_KIB = (40, 700, 1500, 1900, 2300, 2900, 3400, 4200, 4700)


def run(words: list[str], output: Path) -> tuple[int, str]:
    """Run the command. Returns its exit code and the last line of its errors."""
    command = [sys.executable, str(ROOT / "sft_main.py"), *words, "--output_dir", str(output)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


def mount(place: Path, size_kib: int, again: bool = False) -> None:
    """Make the folder a tmpfs of a size, or give it another one."""
    options = f"{'remount,' if again else ''}size={size_kib}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=True, capture_output=True)


def main() -> int:
    """Go through the sizes; 1 where anything is not as it should be."""
    if os.environ.get("FULL_DISK") != "inside":
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        command = ["unshare", *user, "--mount", sys.executable, "-m", "scripts.measure.full_disk"]
        return subprocess.run(command, env={**os.environ, "FULL_DISK": "inside"}).returncode
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = words_of("sft", 1, folder)
        code, error = run(words, folder / "whole")
        assert code == 0, error
        whole = outcome(folder / "whole")
        for size in SIZES_KIB:
            place = folder / f"disk{size}"
            place.mkdir()
            mount(place, size)
            output = place / "output"
            code, error = run(words, output)
            kept = sorted(path.name for path in output.glob("checkpoint-*"))
            damaged = half_written(output)
            mount(place, 64_000, again=True)
            again, last = run(words, output)
            same = again == 0 and all(outcome(output)[name] == whole[name] for name in ("run log", "files", *SAME))
            wrong += bool(damaged) or not same or code not in (0, 1)
            told = error.replace(str(output), "output").replace("|", "/")
            shown = "as undisturbed" if same else f"WRONG: {last}"
            print(f"| {size} | {code} | {told} | {', '.join(kept) or 'none'} | {'; '.join(damaged) or 'all'} | {shown} |", flush=True)
            subprocess.run(["umount", str(place)], check=True)
    print(f"{STEPS} steps; {wrong} of {len(SIZES_KIB)} sizes wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
