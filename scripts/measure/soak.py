"""Let one run go on for 10,000 steps and see that nothing grows: python -m scripts.measure.soak docs/reliability.md [--steps 10000]

dpo_main.py trains the smallest LLaMA as a user starts it, and evaluates, lets the policy answer and saves every 100 steps (a short run: six
times), three checkpoints kept. From outside, its resident memory, open files, threads, CPU seconds and disk use are read from
/proc and its folder several times a second. Writes a picture beside the page and a table into it, between its "soak" lines. Ends with 1
where memory grows by more than LIMIT_PERCENT of itself in 1,000 steps after the first tenth, where files or threads are more at the end
than there, where a step takes more and more CPU time, or where the folder is not as it should be. Memory and CPU time are judged in runs
of JUDGED_STEPS and more: a shorter one is a test of this script. 10 to 40 minutes, as busy as the cores are.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from paddlealign.training.run_folder import list_checkpoints
from paddlealign.training.run_log import read_metrics
from scripts.marks import fill, split
from tests.small_runs import ROOT, make_checkpoint, write_rows

EVERY, KEPT, ANSWERS = 100, 3, 4
LIMIT_PERCENT = 1.0  # of resident memory
LIMIT_CPU_PERCENT = 2.0  # of a step's CPU seconds, which other work on the same cores moves
JUDGED_STEPS = 5000
PARTS = 10
PICTURE = "soak.png"
SECONDS = 0.2


class Look(NamedTuple):
    """What was seen of the run at one moment. step: the last in metrics.jsonl. resident, disk: bytes. cpu: seconds so far."""

    step: int
    resident: int
    files: int
    threads: int
    cpu: float
    disk: int


def words_of(folder: Path, output: Path, steps: int, every: int) -> list[str]:
    """The command line of the run."""
    model = make_checkpoint(folder / "model")
    train, dev = (write_rows(folder / f"{split}.jsonl", "dpo", split, 0, count) for split, count in (("train", 200), ("dev", 8)))
    words = [
        "--model_name_or_path",
        str(model),
        "--train_dataset_path",
        str(train),
        "--dev_dataset_path",
        str(dev),
        "--output_dir",
        str(output),
    ]
    words += ["--do_train", "--do_eval", "--max_length", "128", "--src_length", "64", "--learning_rate", "1e-4", "--max_steps", str(steps)]
    words += ["--per_device_train_batch_size", "2", "--per_device_eval_batch_size", "4", "--logging_steps", "1", "--disable_tqdm", "true"]
    words += ["--evaluation_strategy", "steps", "--eval_steps", str(every), "--save_strategy", "steps", "--save_steps", str(every)]
    words += ["--save_total_limit", str(KEPT), "--sample_during_eval", "true", "--n_eval_model_samples", str(ANSWERS)]
    return [*words, "--sample_max_length", "16"]


class Steps:
    """The last step in a growing metrics.jsonl, of which each byte is read once."""

    def __init__(self, path: Path) -> None:
        self.path, self.read, self.last = path, 0, 0

    def look(self) -> int:
        """What it is now."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self.read)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self.read += len(whole)
            if whole:
                self.last = json.loads(whole.splitlines()[-1])["step"]
        return self.last


def size_of(folder: Path) -> int:
    """The bytes in a folder whose files come and go."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return total


def look_at(pid: int, steps: Steps) -> Look | None:
    """The run now; None where its process has ended."""
    place = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        fields = (place / "stat").read_text().rsplit(")", 1)[1].split()
        files = len(os.listdir(place / "fd"))
        resident, threads = int(status["VmRSS"].split()[0]) * 1024, int(status["Threads"])
    except (OSError, KeyError):  # a zombie has no memory
        return None
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return Look(steps.look(), resident, files, threads, cpu, size_of(steps.path.parent))


def run(words: Sequence[str], output: Path, log: Path) -> list[Look]:
    """Run the command to its end and watch it. Raises AssertionError, with what it said, where it fails."""
    steps, looks = Steps(output / "metrics.jsonl"), []
    with log.open("wb") as file:
        command = [sys.executable, str(ROOT / "dpo_main.py"), *words]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            while process.poll() is None:
                look = look_at(process.pid, steps)
                if look:
                    looks.append(look)
                time.sleep(SECONDS)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, log.read_text(encoding="utf-8", errors="replace")[-3000:]
    return looks


class Part(NamedTuple):
    """A tenth of the run. first, last: steps. Medians, and of disk the most. cpu: seconds a step, evaluations and saves included."""

    first: int
    last: int
    resident: float
    files: float
    threads: float
    cpu: float
    disk: float


def parts_of(looks: Sequence[Look], steps: int) -> list[Part]:
    """The run in PARTS parts, the first of which is its warm-up. What comes before the first step and after the last one is left out."""
    inside = [look for look in looks if 0 < look.step < steps]
    table = np.array(inside, float)
    edges = [steps * part // PARTS for part in range(PARTS + 1)]
    parts = []
    for first, last in itertools.pairwise(edges):
        rows = table[(table[:, 0] > first) & (table[:, 0] <= last)]
        assert len(rows) > 1, f"the run was not looked at between the steps {first} and {last}"
        _, resident, files, threads, *_ = np.median(rows, axis=0)
        cpu = (rows[-1, 4] - rows[0, 4]) / max(rows[-1, 0] - rows[0, 0], 1)
        parts.append(Part(first + 1, last, resident, files, threads, cpu, rows[:, 5].max()))
    return parts


def percent_a_thousand(steps: Sequence[float], values: Sequence[float]) -> float:
    """The slope of the straight line through some values, as percent of their mean in 1,000 steps."""
    return float(np.polyfit(steps, values, 1)[0] * 1000 / np.mean(values) * 100)


def slopes(looks: Sequence[Look], parts: Sequence[Part]) -> tuple[float, float]:
    """How fast resident memory and a step's CPU seconds grow after the first tenth: percent in 1,000 steps."""
    after = [look for look in looks if parts[1].first <= look.step < parts[-1].last]
    memory = percent_a_thousand([look.step for look in after], [look.resident for look in after])
    return memory, percent_a_thousand([(part.first + part.last) / 2 for part in parts[1:]], [part.cpu for part in parts[1:]])


def folder_faults(output: Path, steps: int, every: int) -> list[str]:
    """What is not as it should be in the folder of a run that has ended."""
    lines = read_metrics(output)
    wrong = []
    if [line["step"] for line in lines if "loss" in line] != list(range(1, steps + 1)):
        wrong.append("metrics.jsonl has not each step once")
    for name, expected in (("eval_loss", range(every, steps + 1, every)), ("samples/length", range(0, steps + 1, every))):
        found = [line["step"] for line in lines if name in line]
        if found != list(expected):
            wrong.append(f"{name} stands at {len(found)} steps instead of {len(expected)}")
    kept = [step for step, _ in list_checkpoints(output)]
    if kept != [steps - every * back for back in reversed(range(KEPT))]:
        wrong.append(f"checkpoints of the steps {kept} are left")
    return wrong + [f"{path.name} is left" for path in output.rglob("*") if path.suffix in (".part", ".partial", ".removed")]


def growth_faults(parts: Sequence[Part], grown: tuple[float, float], steps: int) -> list[str]:
    """What grows."""
    wrong = [
        f"{name}: {getattr(parts[-1], name):g} at the end, {getattr(parts[1], name):g} after the first tenth"
        for name in ("files", "threads")
        if getattr(parts[-1], name) > getattr(parts[1], name)
    ]
    for name, value, limit in zip(("memory", "CPU time of a step"), grown, (LIMIT_PERCENT, LIMIT_CPU_PERCENT), strict=True):
        if steps >= JUDGED_STEPS and value > limit:
            wrong.append(f"{name} grows by {value:.2f} % in 1,000 steps")
    return wrong


def draw(looks: Sequence[Look], parts: Sequence[Part], path: Path, title: str) -> None:
    """The picture: four curves over the steps."""
    inside = [look for look in looks if 0 < look.step < parts[-1].last]
    steps, middles = [look.step for look in inside], [(part.first + part.last) / 2 for part in parts]
    panels = {
        "resident memory, MB": [("", steps, [look.resident / 1e6 for look in inside])],
        "CPU milliseconds a step, with evaluations and saves": [("", middles, [part.cpu * 1e3 for part in parts])],
        "open files and threads": [
            ("files", steps, [look.files for look in inside]),
            ("threads", steps, [look.threads for look in inside]),
        ],
        "output_dir, MB": [("", steps, [look.disk / 1e6 for look in inside])],
    }
    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    for axis, (name, curves) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for label, across, values in curves:
            axis.plot(across, values, label=label, linewidth=1.2, marker="o" if len(across) == PARTS else None, markersize=3)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step", fontsize=9)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        if len(curves) > 1:
            axis.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=100)


def table_of(parts: Sequence[Part], grown: tuple[float, float], seconds: float, wrong: Sequence[str]) -> list[str]:
    """The page's lines. seconds: of CPU, of the whole run."""
    lines = ["| steps | resident MB | CPU ms a step | open files | threads | output_dir MB at most |", f"|---|{'---:|' * 5}"]
    for part in parts:
        figures = f"{part.resident / 1e6:.1f} | {part.cpu * 1e3:.1f} | {part.files:g} | {part.threads:g} | {part.disk / 1e6:.1f}"
        lines.append(f"| {part.first:,} to {part.last:,} | {figures} |")
    if wrong:
        return [*lines, "", f"WRONG: {'; '.join(wrong)}."]
    steps, (memory, cpu) = parts[-1].last, grown
    told = f"{steps:,} steps in {seconds / 60:.0f} CPU minutes. metrics.jsonl has each step once, and the last {KEPT} checkpoints are left."
    growth = f"After the first tenth resident memory grows by {memory:+.2f} % in 1,000 steps, a step's CPU time by {cpu:+.2f} %."
    picture = f"![memory, CPU time, open files and disk use over the steps](images/{PICTURE})"
    return [*lines, "", told, growth if steps >= JUDGED_STEPS else "Too few steps to tell growth.", "", picture]


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--steps", type=int, default=10_000)
    asked = parser.parse_args()
    every = min(EVERY, asked.steps // 6)
    if asked.steps < 60 or asked.steps % every:
        parser.error("--steps: a multiple of 100, or of 6 below 600; 60 at least")
    try:
        split(asked.page, "soak")
    except RuntimeError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "output"
        looks = run(words_of(Path(name), output, asked.steps, every), output, Path(name) / "log.txt")
        wrong = folder_faults(output, asked.steps, every)
    parts = parts_of(looks, asked.steps)
    grown = slopes(looks, parts)
    wrong += growth_faults(parts, grown, asked.steps)
    lines = table_of(parts, grown, looks[-1].cpu, wrong)
    draw(looks, parts, asked.page.parent / "images" / PICTURE, f"{asked.steps:,} steps of DPO, the smallest model")
    fill(asked.page, "soak", "\n".join(lines))
    print("\n".join(lines))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
