"""The laws of the house that a linter does not know: sizes, names, inheritance, packages, and words that do not belong here."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.10", "3.11", "3.12")
FILE_LINES, FUNCTION_LINES = 320, 80

# Where the name of the import is not the name of the package.
PACKAGE_OF = {"paddle": "paddlepaddle", "yaml": "pyyaml", "markdown_it": "markdown-it-py"}
# Needed without an import of ours: see requirements.in and requirements-dev.in.
NOT_IMPORTED = {"pip", "setuptools", "mypy", "ruff", "pytest-timeout", "pytest-xdist"}
# The golden files were made once with these, and TRL is measured with them; they are no part of the environment.
OF_ANOTHER_ENVIRONMENT = {"peft", "safetensors", "torch", "transformers", "trl"}
RUN_IN_ANOTHER = ("scripts/golden", "scripts/benchmark/peers")
# What a user may add: refused in plain words where it is missing, and in requirements-dev.in for the tests.
OPTIONAL = {"wandb"}
# What only those need who work on the project: these files may import what requirements-dev.in names.
FOR_DEVELOPERS = ("scripts/api_pages.py", "scripts/measure/page.py", "scripts/messages/catalog_file.py")

# One letter of each stands in brackets, so that this file is not its own first find.
STRANGE_WORDS = {
    "a path of one machine": [r"/(?:[o]pt|[r]oot|[t]mp|[w]ork)/\w"],
    "a package registry's host": [
        r"[p]ypi\.(org|python|io)",
        r"[p]ythonhosted",
        r"[t]una\.tsinghua",
        r"[a]liyun\.com",
        r"[p]addlepaddle\.org\.cn/(packages|whl)",
        r"[b]cebos\.com",
        r"[i]ndex-url[ =]+https?://",
    ],
}


@cache
def tracked_files() -> list[Path]:
    """What git holds or would add; everything but environments and caches where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout.split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts[:-1])]
    return sorted(path for path in paths if path.is_file() and "__pycache__" not in path.parts)


def python_files(*folders: str) -> list[Path]:
    """Tracked Python files below these folders; "" stands for the root alone."""
    found = [path for path in tracked_files() if path.suffix == ".py"]
    return [path for path in found if ("" if path.parent == ROOT else path.relative_to(ROOT).parts[0]) in folders]


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


# The rules: each reads one syntax tree and yields (line, what is wrong).


def long_functions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {length} lines; {FUNCTION_LINES} are allowed"


def passed_through(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and node.args.kwarg:
            yield node.lineno, f"**{node.args.kwarg.arg}: name the parameters"


def inherited_from(own_classes: set[str]) -> Callable[[ast.Module], Iterator[tuple[int, str]]]:
    def rule(tree: ast.Module) -> Iterator[tuple[int, str]]:
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            for base in node.bases:
                plain = base.value if isinstance(base, ast.Subscript) else base
                name = plain.attr if isinstance(plain, ast.Attribute) else plain.id if isinstance(plain, ast.Name) else ""
                if name in own_classes:
                    yield node.lineno, f"{node.name} inherits from our own {name}"

    return rule


def classes_of(trees: Iterable[ast.Module]) -> set[str]:
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def is_run_apart(path: Path) -> bool:
    """Whether a file runs in an environment of its own."""
    return any(path.is_relative_to(ROOT / folder) for folder in RUN_IN_ANOTHER)


def imported_packages(path: Path) -> set[str]:
    """Packages outside the standard library that a file imports, by the names that they are installed under."""
    names = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    beside = path.parent.glob("*.py") if is_run_apart(path) else []  # these files are started by their path
    ours = {"paddlealign", "scripts", "tests"} | {found.stem for found in [*python_files(""), *beside]}
    return {canonicalize_name(PACKAGE_OF.get(name, name)) for name in names - sys.stdlib_module_names - ours}


def requirements_of(name: str) -> list[Requirement]:
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


@cache
def names_of(name: str) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements_of(name)}


def pins_of(name: str, python: str) -> dict[str, str]:
    """Package -> version that a requirements file gives one Python on Linux."""
    where = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
    }
    pins: dict[str, str] = {}
    for requirement in requirements_of(name):
        if requirement.marker and not requirement.marker.evaluate(where):
            continue
        [exact] = requirement.specifier
        assert exact.operator == "==", f"{name}: {requirement} is not exact"
        assert "*" not in exact.version, f"{name}: {requirement} is not exact"
        package = canonicalize_name(requirement.name)
        assert package not in pins, f"{name}: two pins of {package} on Python {python}"
        pins[package] = exact.version
    return pins


def strange_words(text: str) -> list[tuple[int, str]]:
    """Line number and kind of every word that does not belong into the repository."""
    return [
        (number, kind)
        for number, line in enumerate(text.splitlines(), 1)
        for kind, patterns in STRANGE_WORDS.items()
        if any(re.search(pattern, line, re.IGNORECASE) for pattern in patterns)
    ]


def assert_kept(rule: Callable[[ast.Module], Iterator[tuple[int, str]]], files: list[Path]) -> None:
    assert files
    found = [f"{path.relative_to(ROOT)}:{line}: {text}" for path in files for line, text in rule(parse(path))]
    assert not found, "\n" + "\n".join(found)


def test_files_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files("paddlealign")}
    found = [f"{path.relative_to(ROOT)}: {lines} lines" for path, lines in lengths.items() if lines > FILE_LINES]
    assert not found, f"\n{FILE_LINES} lines are allowed:\n" + "\n".join(found)


def test_functions_are_short():
    assert_kept(long_functions, python_files("paddlealign", ""))


def test_no_parameters_are_passed_through_unnamed():
    assert_kept(passed_through, python_files("paddlealign", "", "scripts"))


def test_no_class_inherits_from_one_of_ours():
    files = python_files("paddlealign", "", "scripts")
    assert_kept(inherited_from(classes_of(map(parse, files))), files)


def test_no_file_is_called_utils():
    found = [path for path in tracked_files() if re.fullmatch(r"utils?", path.stem)]
    assert not found, f"name what is in it: {found}"


def test_no_text_names_a_machine_or_a_registry():
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # an image or weights
            continue
        found += [f"{path.relative_to(ROOT)}:{line}: {kind}" for line, kind in strange_words(text)]
    assert not found, "\n" + "\n".join(found)


def test_what_is_imported_is_named_in_requirements_in_and_the_other_way_round():
    used = {path: imported_packages(path) for path in python_files("paddlealign", "", "scripts")}
    developers = set().union(*(used.pop(ROOT / name) for name in FOR_DEVELOPERS))
    unnamed = {
        f"{path.relative_to(ROOT)}: {package}"
        for path, packages in used.items()
        for package in packages - names_of("requirements.in") - (OF_ANOTHER_ENVIRONMENT if is_run_apart(path) else OPTIONAL)
    }
    assert not unnamed, f"imported, but not named in requirements.in: {sorted(unnamed)}"
    tests = developers.union(*map(imported_packages, python_files("tests")))
    assert tests <= names_of("requirements.in") | names_of("requirements-dev.in")
    idle = (names_of("requirements.in") - set().union(*used.values())) | (names_of("requirements-dev.in") - tests)
    assert idle - tests <= NOT_IMPORTED, f"named, but imported nowhere: {sorted(idle - tests - NOT_IMPORTED)}"


@pytest.mark.parametrize("python", PYTHONS)
def test_the_pins_are_exact_whole_and_within_what_was_asked(python: str):
    pins, tools = pins_of("requirements.txt", python), pins_of("requirements-dev.txt", python)
    for asked, given in (("requirements.in", pins), ("constraints.in", pins), ("requirements-dev.in", tools)):
        for requirement in requirements_of(asked):
            version = given.get(canonicalize_name(requirement.name))
            assert version is not None or asked == "constraints.in", f"{requirement} of {asked} has no pin; run scripts/pin.sh"
            assert version is None or version in requirement.specifier, (
                f"{requirement} of {asked} is pinned to {version}; run scripts/pin.sh"
            )
    clashes = {name: (pins[name], tools[name]) for name in pins.keys() & tools.keys() if pins[name] != tools[name]}
    assert not clashes


def test_what_we_import_has_one_version_on_every_python():
    for name in names_of("requirements.in"):
        assert len({pins_of("requirements.txt", python)[name] for python in PYTHONS}) == 1, name


def test_the_gpu_environment_differs_in_one_package():
    cpu, gpu = ((ROOT / name).read_text(encoding="utf-8").splitlines()[1:] for name in ("requirements.txt", "requirements-gpu.txt"))
    different = [(a, b) for a, b in zip(cpu, gpu, strict=True) if a != b]
    [(a, b)] = different
    assert a.startswith("paddlepaddle==")
    assert b == a.replace("paddlepaddle", "paddlepaddle-gpu")


# The rules themselves, each on a text that breaks it and on one that does not.


def test_a_long_function_is_found():
    body = "\n".join("    x = 1" for _ in range(FUNCTION_LINES))
    assert [line for line, _ in long_functions(ast.parse(f"\ndef f():\n{body}"))] == [2]
    assert not list(long_functions(ast.parse(f"def f():\n{body[:-10]}")))


def test_unnamed_parameters_are_found():
    assert [line for line, _ in passed_through(ast.parse("def f(a, **rest):\n    g = lambda **o: o"))] == [1, 2]
    assert not list(passed_through(ast.parse("def f(*a, b=1):\n    g(**a)")))


def test_inheritance_is_found():
    tree = ast.parse("class A: ...\nclass B(nn.Layer): ...\nclass C(A): ...\nclass D(module.A): ...\nclass E(A[int]): ...")
    assert [line for line, _ in inherited_from(classes_of([tree]))(tree)] == [3, 4, 5]


@pytest.mark.parametrize(
    "text", ["see /" + "work/main/x", "https://" + "pypi" + ".org/simple", "--extra-" + "index-url https" + "://a.b/c", "cd /" + "root/x"]
)
def test_a_strange_word_is_found(text: str):
    assert [line for line, _ in strange_words(f"fine\n{text}")] == [2]


def test_ordinary_words_are_not_strange():
    assert strange_words("a framework/work and a root/ folder, Paddle's own index, pip install") == []
