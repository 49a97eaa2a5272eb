"""Runs that are killed at random moments and started again end as undisturbed ones; scripts/measure/kills.py has the long form."""

import os
import subprocess
import sys

import pytest

from tests.small_runs import ROOT


@pytest.mark.parametrize(("recipe", "layout", "kills"), [("sft", "single", 3), ("dpo", "single", 4), ("dpo", "dp2", 2)])
def test_a_killed_run_ends_as_an_undisturbed_one(recipe: str, layout: str, kills: int):
    command = [sys.executable, "-m", "scripts.measure.kills", str(kills), "--recipe", recipe, "--layout", layout, "--seed", "5"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    row = done.stdout.splitlines()[-1].split(" | ")
    assert row[:3] == [f"| {recipe}", layout, str(kills)] and row[-1] == "all as undisturbed |"
