"""Imports go downward only. The source is read, not run, so that an import inside a function counts as well."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From the ground up. A folder may import the lower ones and itself, not its neighbours on one level.
LEVELS = [
    {"arguments"},
    {"objectives", "data"},
    {"models", "parallel"},
    {"training", "evaluation", "report", "planning"},
    {"recipes"},
    {"convert", "export", "plan", "tour"},  # paddlealign/export.py and its like: commands, as sft_main.py is
]
LEVEL_OF = {folder: level for level, folders in enumerate(LEVELS) for folder in folders}
FOR_ALL = {"", "errors", "versions", "machine", "messages", "saying"}  # "" is the package itself: __version__
FRAMEWORKS = {"paddle", "paddlenlp"}
WITHOUT_FRAMEWORK = {"data", "arguments", *FOR_ALL}
OBJECTIVES_MAY_IMPORT = {"paddle", "numpy", "paddlealign"} | sys.stdlib_module_names


class Import(NamedTuple):
    """One imported module: its line and its full name."""

    line: int
    module: str


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file, wherever it stands. ``from paddlealign import x`` is an import of paddlealign.x."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            if base == "paddlealign":
                yield from (Import(node.lineno, f"paddlealign.{alias.name}") for alias in node.names)
            else:
                yield Import(node.lineno, base)


def fault(folder: str, module: str) -> str | None:
    """What is wrong with ``module`` being imported in ``paddlealign/folder``, or None."""
    top, _, rest = module.partition(".")
    if module.startswith("."):
        return "is relative; name the module in full"
    if folder in WITHOUT_FRAMEWORK and top in FRAMEWORKS:
        return f"{folder or 'the top level'} works without a framework"
    if folder == "objectives" and top not in OBJECTIVES_MAY_IMPORT:
        return "objectives are functions of tensors: paddle and numpy only"
    if top != "paddlealign":
        return None
    target = rest.split(".")[0]
    if target in FOR_ALL or target.startswith("__") or target == folder:
        return None
    if target not in LEVEL_OF:
        return "is in no layer; add its folder to LEVELS"
    if folder == "objectives":
        return "a loss sees tensors, no other part of the house"
    if folder in FOR_ALL:
        return "what all may import imports nobody"
    if folder not in LEVEL_OF:
        return f"{folder} is in no layer; add it to LEVELS"
    return None if LEVEL_OF[target] < LEVEL_OF[folder] else f"is not below {folder}"


def faults_in(package: Path) -> list[str]:
    """One line for each import that goes the wrong way: file, line, module, reason."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).parts
        folder = parts[0] if len(parts) > 1 else path.stem.removeprefix("__init__")
        for line, module in imports_of(path):
            reason = fault(folder, module)
            if reason:
                found.append(f"{path.relative_to(package.parent)}:{line}: {module}: {reason}")
    return found


def test_imports_go_downward():
    found = faults_in(ROOT / "paddlealign")
    assert not found, "\n" + "\n".join(found)


def test_every_layer_that_exists_is_watched():
    folders = {path.name for path in (ROOT / "paddlealign").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= LEVEL_OF.keys() | FOR_ALL
    assert {"arguments", "data", "objectives", "models", "training", "recipes"} <= folders


@pytest.mark.parametrize(
    ("file", "source", "reason"),
    [
        ("data/a.py", "from paddlealign.models.head import token_logps", "is not below data"),
        ("models/a.py", "def f():\n    import paddlealign.training.loop", "is not below models"),
        ("training/a.py", "from paddlealign import recipes", "is not below training"),
        ("training/a.py", "from paddlealign.report.curves import draw", "is not below training"),
        ("data/a.py", "def f():\n    import paddle", "works without a framework"),
        ("arguments/a.py", "from paddlenlp.trainer import PdArgumentParser", "works without a framework"),
        ("versions.py", "import paddle", "works without a framework"),
        ("errors.py", "from paddlealign.data.example import Batch", "imports nobody"),
        ("objectives/dpo.py", "from paddlealign.arguments.fields import ObjectiveArguments", "a loss sees tensors"),
        ("objectives/dpo.py", "from paddlealign.data.example import Batch", "a loss sees tensors"),
        ("objectives/dpo.py", "import scipy", "paddle and numpy only"),
        ("recipes/a.py", "from ..training import loop", "is relative"),
        ("recipes/a.py", "import paddlealign.helpers.a", "is in no layer"),
        ("helpers/a.py", "import paddlealign.data.example", "is in no layer"),
    ],
)
def test_an_import_that_goes_the_wrong_way_is_told_with_file_and_line(tmp_path: Path, file: str, source: str, reason: str):
    path = tmp_path / "paddlealign" / file
    path.parent.mkdir(parents=True)
    path.write_text(f'"""A file."""\n\n{source}\n', encoding="utf-8")
    [told] = faults_in(tmp_path / "paddlealign")
    assert told.startswith(f"paddlealign/{file}:{3 + source.count(chr(10))}: ")
    assert reason in told


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("recipes/a.py", "import paddlealign.training.loop\nfrom paddlealign.data.example import Batch\nimport paddle"),
        ("models/a.py", "from paddlealign.errors import UserError\nfrom paddlealign.models.head import token_logps"),
        ("objectives/a.py", "import math\nimport paddle\nfrom paddlealign.objectives.result import Sums"),
        ("training/a.py", "from paddlealign import __version__\nfrom paddlealign.versions import check_versions"),
    ],
)
def test_an_import_that_goes_down_is_allowed(tmp_path: Path, file: str, source: str):
    path = tmp_path / "paddlealign" / file
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    assert faults_in(tmp_path / "paddlealign") == []


def test_arguments_data_and_the_commands_are_imported_without_a_framework():
    """What the source cannot show: nothing that they import brings Paddle in by another way."""
    files = [path for folder in ("arguments", "data") for path in (ROOT / "paddlealign" / folder).glob("*.py")]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files if not path.stem.startswith("__")]
    modules += ["sft_main", "dpo_main", "predict", "paddlealign.export", "paddlealign.plan", "paddlealign.tour"]
    script = (
        f"import importlib, sys\n"
        f"for name in {sorted(modules)!r}:\n"
        f"    importlib.import_module(name)\n"
        f"    assert not {FRAMEWORKS!r} & sys.modules.keys(), name + ' brings in a framework'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
