"""Find in the source what it says to people: every text of words, as the template that ``paddlealign.messages`` compares with.

A text is a string or an f-string, or several with ``+`` between them. The values of an f-string are places, named after what is
written there; a conditional between texts is a choice. Left out: docstrings, the help of the keys (``--help`` stays English), texts of
errors that are the programmer's, and the files that write pages.
"""

import ast
import builtins
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from paddlealign.messages.template import Choice, Place, Template, write
from scripts.messages.english import ENGLISH

PACKAGE = Path(__file__).resolve().parents[2] / "paddlealign"
# Files whose texts go into a page, a chart or the documentation, which are English, or that read messages.
NOT_TOLD = frozenset(
    f"report/{name}.py" for name in ("argument_tables", "charts", "curves", "facts", "histograms", "page", "sample_table", "thin")
) | {"arguments/show.py", "messages/catalog.py", "messages/template.py"}
# Errors of whoever calls a function, which end in a traceback; in the folders below, where texts of users are read, they become messages.
OF_PROGRAMMERS = {"AssertionError", "KeyError", "RuntimeError", "TypeError", "ValueError"}
OF_USERS = ("arguments/", "data/", "recipes/", "report/")
HELP = {"key", "_key", "add_argument", "ArgumentParser"}
_SPEECH = re.compile(r"[A-Za-z]{2,}[^\w\s]* [^ ]|[\w\0][^\w\s]* [A-Za-z]{2,}|^ [A-Za-z]{2,}|[A-Za-z]{2,}: $")


def messages(package: Path = PACKAGE) -> dict[str, list[str]]:
    """Template -> the files that have it, in the order of files and lines. Texts that differ in their places' names alone are one."""
    found: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for text in (*of_the_system(), *OF_JSON):
        found[text] = ["(Python and the system)"]
    for text in LABELS:
        found[text] = ["(labels of the blocks)"]
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name in NOT_TOLD:
            continue
        for template in templates(ast.parse(path.read_text(encoding="utf-8")), name.startswith(OF_USERS)):
            text = first.setdefault(skeleton(template), write(template))
            if text in ENGLISH:
                continue
            files = found.setdefault(text, [])
            if name not in files:
                files.append(name)
    return found


# What Python's JSON reader says.
OF_JSON = (
    "Expecting property name enclosed in double quotes", "Expecting value", "Expecting ',' delimiter", "Expecting ':' delimiter",
    "Unterminated string starting at", "Invalid control character at", "Invalid \\escape", "Invalid \\uXXXX escape", "Extra data",
)  # fmt: skip


# What stands in front of the lines of the blocks at a run's start and end, over the commands to run next, and for an example's tokens.
LABELS = (
    "  model", "  adapter", "  reference", "  train", "  dev", "  layout", "  a step", "  steps", "  saves", "  evaluates", "  memory",
    "  time", "  output", "  arguments", "  speed", "  best", "  page", "next:", "scored",
)  # fmt: skip


def of_the_system() -> list[str]:
    """What the system says of files and addresses, as it says it in English."""
    numbers = (
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EEXIST,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EROFS,
        errno.EFBIG,
        errno.ENAMETOOLONG,
        errno.EMFILE,
        errno.EADDRINUSE,
        errno.ECONNREFUSED,
    )
    return [os.strerror(number) for number in numbers]


def skeleton(template: Template) -> str:
    """A template without the names of its places."""
    counted = iter(range(10_000))

    def plain(parts: Template) -> Template:
        return tuple(
            part
            if isinstance(part, str)
            else Place(f"p{next(counted)}")
            if isinstance(part, Place)
            else Choice(f"p{next(counted)}", tuple(plain(text) for text in part.texts))
            for part in parts
        )

    return write(plain(template))


def templates(tree: ast.AST, all_errors: bool = False) -> Iterator[Template]:
    """The texts of words in a file. all_errors: those of programmers' errors, too."""
    docs: set[ast.AST] = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    left_out = docs if all_errors else docs | {node for node in ast.walk(tree) if _is_for_programmers(node)}
    yield from _texts(tree, left_out)


def _texts(node: ast.AST, left_out: set[ast.AST]) -> Iterator[Template]:
    if node in left_out or _is_help(node):
        return
    inner: list[ast.AST] = list(ast.iter_child_nodes(node))
    if _is_text(node):
        names: dict[str, str] = {}
        template, inner = _merged(list(_parts(node, names))), list(_values(node))
        if is_told(template):
            yield template
    for child in inner:
        yield from _texts(child, left_out)


def is_told(template: Template) -> bool:
    """Whether a template says something: two words, or one beside a place, with a space between."""
    return bool(_SPEECH.search("".join(_plain(template))))


def _plain(template: Template) -> Iterator[str]:
    for part in template:
        if isinstance(part, Choice):
            for text in part.texts:
                yield from _plain(text)
        else:
            yield part if isinstance(part, str) else "\0"


def _is_for_programmers(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return True
    called = node.exc.func if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) else None
    return isinstance(called, ast.Name) and called.id in OF_PROGRAMMERS


def _is_help(node: ast.AST) -> bool:
    called = node.func if isinstance(node, ast.Call) else None
    return (called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else "") in HELP


def _is_text(node: ast.AST) -> bool:
    """A string, or what is built of strings."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_choice(node: ast.AST) -> bool:
    """A conditional of texts, one of which may be a value."""
    return isinstance(node, ast.IfExp) and any(_is_text(way) or _is_choice(way) for way in (node.body, node.orelse))


def _parts(node: ast.AST, names: dict[str, str]) -> Iterator[str | Place | Choice]:
    """The parts of a text. names: name -> what it names, of the places so far."""
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield from _parts(value, names)
    elif isinstance(node, ast.BinOp) and _is_text(node):
        yield from _parts(node.left, names)
        yield from _parts(node.right, names)
    elif isinstance(node, ast.FormattedValue) and node.conversion == -1 and node.format_spec is None:
        yield from _parts(node.value, names)
    elif isinstance(node, ast.IfExp) and _is_choice(node):
        name = _named(node.test, names, f"if {ast.unparse(node.test)} at {node.lineno}:{node.col_offset}")
        ways = list(_ways(node))
        yield Choice(name, tuple(_merged(list(_parts(way, names))) for way in ways))
    else:
        yield Place(_named(node, names, ast.unparse(node)))


def _ways(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.IfExp):
        yield from _ways(node.body)
        yield from _ways(node.orelse)
    else:
        yield node


def _values(node: ast.AST) -> Iterator[ast.AST]:
    """The expressions in a text's places, which may hold texts of their own."""
    if isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield from _values(value)
    elif isinstance(node, ast.BinOp) and _is_text(node):
        yield from _values(node.left)
        yield from _values(node.right)
    elif isinstance(node, ast.FormattedValue):
        yield from _values(node.value) if node.conversion == -1 and node.format_spec is None else [node.value]
    elif isinstance(node, ast.IfExp) and _is_choice(node):
        yield node.test
        for way in _ways(node):
            yield from _values(way)
    elif not isinstance(node, ast.Constant):
        yield node


def _merged(parts: list[str | Place | Choice]) -> Template:
    """Parts with texts that touch made one; of places that touch, which no reader of the finished text can tell apart, the first."""
    done: list[str | Place | Choice] = []
    for part in parts:
        before = done[-1] if done else None
        if isinstance(part, str) and isinstance(before, str):
            done[-1] = before + part
        elif not (isinstance(part, Place) and isinstance(before, Place)) and part != "":
            done.append(part)
    return tuple(done)


def _named(node: ast.AST, names: dict[str, str], meaning: str) -> str:
    """A short name for an expression: its first variable, or the attribute of it; another one gets a number."""
    base = next((word for word in _variables(node)), "value").strip("_").lower() or "value"
    name, count = base, 1
    while names.setdefault(name, meaning) != meaning:
        count += 1
        name = f"{base}{count}"
    return name


def _variables(node: ast.AST) -> Iterator[str]:
    """The variables of an expression in their order, each as its last attribute; not the functions that are called."""
    if isinstance(node, ast.Name):
        if not hasattr(builtins, node.id):
            yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Call):
        for argument in [*node.args, *(word.value for word in node.keywords)]:
            yield from _variables(argument)
        yield from _variables(node.func.value if isinstance(node.func, ast.Attribute) else node.func)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _variables(child)
