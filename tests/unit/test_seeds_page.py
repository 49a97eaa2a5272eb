"""docs/seeds.md has every row of what users of the source documents can do, and names tests that exist."""

import ast
import re

from tests.small_runs import ROOT

ROWS = [
    *(f"T{n}" for n in range(1, 16)),
    *(f"P{n}" for n in range(1, 12)),
    *(f"E{n}" for n in range(1, 9)),
    *(f"D{n}" for n in range(1, 7)),
]
FAULTS = [f"{document}: not {letter}" for document in "PD" for letter in "abcd"]


def test_every_row_is_there_once_with_a_test_that_exists():
    page = (ROOT / "docs/seeds.md").read_text(encoding="utf-8")
    lines = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ") and not line.startswith("| row")]
    assert sorted(cells[0].strip() for cells in lines) == sorted([*ROWS, *FAULTS])
    missing = []
    for cells in lines:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", "|".join(cells[2:]))
        assert named, f"{cells[0]} names no test"
        for file, name in named:
            path = ROOT / file
            tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
            if not any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body):
                missing.append(f"{cells[0]}: {file}::{name}")
    assert not missing
