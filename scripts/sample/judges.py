"""The sample task's judge for ``evaluate.py judge --judge scripts/sample/judges.py:preferred``."""

import functools
import json
from pathlib import Path

from scripts.sample.task import judge

HELDOUT = Path(__file__).resolve().parents[2] / "data" / "heldout.json"


@functools.cache
def heldout_rows() -> dict[str, dict]:
    """Prompt -> the row of data/heldout.json with what the judge needs."""
    rows = [json.loads(line) for line in HELDOUT.read_text(encoding="utf-8").splitlines()]
    return {row["src"]: row for row in rows}


def preferred(prompt: str, answer_a: str, answer_b: str) -> tuple[bool, bool]:
    """Whether each answer to a prompt of data/heldout.json is right and warm; two such answers are a tie, and two others as well."""
    row = heldout_rows().get(prompt)
    if row is None:
        raise ValueError("this judge knows the prompts of data/heldout.json only (in training: --sample_data_file data/heldout.json)")
    return judge(row, answer_a).win, judge(row, answer_b).win
