"""The quickstart, whole, in a copy of the repository: SFT lands near one half, DPO gets the rest, the sums stay right, and the reward model
judges the answers as the exact judge does."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.sample.show import agreement, first_and_last, rates, read_rows

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files as git lists them, and its environment."""
    folder = tmp_path_factory.mktemp("quickstart")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def quickstart(folder: Path) -> str:
    done = subprocess.run(
        ["bash", "scripts/quickstart.sh"], cwd=folder, capture_output=True, text=True, timeout=1500, env={**os.environ, "PYTHONPATH": ""}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.timeout(1800)
def test_quickstart(copy: Path):
    said = quickstart(copy)
    out = copy / "output" / "quickstart"
    before, after = rates(read_rows(out / "sft_heldout.json")), rates(read_rows(out / "dpo_heldout.json"))
    assert len(read_rows(out / "dpo_heldout.json")) >= 200
    assert 35 <= before["win"] <= 65, before
    assert after["win"] >= 90, (before, after)
    assert after["sums"] >= before["sums"], (before, after)

    metrics = read_rows(out / "dpo" / "metrics.jsonl")
    first, last = first_and_last(metrics, "loss")
    assert first < 0.7 and last < first
    assert first_and_last(metrics, "rewards/accuracies")[1] > 0.9
    decided, same = agreement(read_rows(out / "judged.jsonl"))
    assert decided >= 80 and same >= 0.8 * decided, (decided, same)
    for stage in ("sft", "reward", "dpo"):
        assert json.loads((out / stage / "run.json").read_text())["finished"] is True
        assert (out / stage / "curves.png").stat().st_size > 10_000
    for words in ("win rate", "after SFT", "after DPO", "sums right", "DPO reward margin", "Two judges", "Answers"):
        assert words in said

    again = quickstart(copy)
    assert again.count("reused") == 6
