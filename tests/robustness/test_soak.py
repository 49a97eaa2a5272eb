"""scripts/measure/soak.py in its short form, and that it sees what grows; its long form's figures are in docs/reliability.md."""

import json
import os
import subprocess
import sys
from pathlib import Path

from scripts.measure import soak
from scripts.measure.soak import Look, folder_faults, growth_faults, parts_of, slopes
from tests.small_runs import ROOT


def looks(memory: int = 0, files: int = 0, threads: int = 0, cpu: float = 0.0) -> list[Look]:
    """Of a run of 10,000 steps, with what grows in 1,000 of them; cpu: seconds a step."""
    return [
        Look(
            step,
            400_000_000 + memory * step // 1000,
            13 + files * step // 1000,
            4 + threads * step // 1000,
            (0.04 + cpu * step / 2000) * step,
            8,
        )
        for step in range(0, 10_000, 20)
    ]


def told(found: list[Look]) -> list[str]:
    parts = parts_of(found, 10_000)
    return growth_faults(parts, slopes(found, parts), 10_000)


def test_what_grows_is_told():
    assert told(looks()) == []
    assert told(looks(memory=3_000_000)) == []
    assert [text.split(" by ")[0] for text in told(looks(memory=5_000_000))] == ["memory grows"]
    assert told(looks(files=1)) == ["files: 22 at the end, 14 after the first tenth"]
    assert told(looks(threads=1)) == ["threads: 13 at the end, 5 after the first tenth"]
    assert [text.split(" by ")[0] for text in told(looks(cpu=0.002))] == ["CPU time of a step grows"]


def test_what_is_left_in_the_folder_is_told(tmp_path: Path):
    def write(*lines: dict) -> None:
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    answers, steps = {"step": 0, "samples/length": 1.0}, [{"step": step, "loss": 1.0} for step in range(1, 7)]
    looked = [{"step": step, "eval_loss": 1.0, "samples/length": 1.0} for step in range(1, 7)]
    for step in (3, 4, 5, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (4, 5, 6):
        (tmp_path / f"checkpoint-{step}" / "manifest.json").touch()
    write(answers, *steps, *looked)
    assert folder_faults(tmp_path, 6, 1) == []
    write(answers, *steps, steps[2], *looked[1:])
    (tmp_path / "checkpoint-3" / "manifest.json").touch()
    (tmp_path / "checkpoint-6.partial").mkdir()
    assert folder_faults(tmp_path, 6, 1) == [
        "metrics.jsonl has not each step once",
        "eval_loss stands at 5 steps instead of 6",
        "samples/length stands at 6 steps instead of 7",
        "checkpoints of the steps [3, 4, 5, 6] are left",
        "checkpoint-6.partial is left",
    ]


def test_a_short_run_fills_the_page(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- soak: begin -->\nold\n<!-- soak: end -->\nbehind\n")
    command = [sys.executable, "-m", soak.__name__, str(page), "--steps", "300"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    text = page.read_text()
    assert (
        text.startswith("before\n<!-- soak: begin -->\n| steps | resident MB |")
        and text.endswith("<!-- soak: end -->\nbehind\n")
        and "old" not in text
    )
    assert "| 271 to 300 | " in text and "300 steps in " in text and "the last 3 checkpoints are left" in text
    assert (tmp_path / "images" / "soak.png").stat().st_size > 10_000
